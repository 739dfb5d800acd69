"""Generated units to sound, through the unit decoder of a model directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitone.codecs import codec, unit_decoder
from unitone.codecs.codec import Sound
from unitone.codecs.synthesize import write_wave
from unitone.errors import ConfigError
from unitone.lm.model_dir import Loaded
from unitone.tokenizers.passport import require_same


class Voice:
    """A unit decoder that fits a model."""

    def __init__(self, loaded: Loaded, *, decoder: Path | None = None) -> None:
        """Open ``decoder``, or the model's own.

        Raises:
            ConfigError: there is none, or it is of another tokenizer.
            CheckpointError: it is damaged.
        """
        folder = decoder or loaded.decoder
        if folder is None:
            raise ConfigError(
                f"{loaded.folder} has no unit decoder, so it can't be heard: train one with "
                "`python -m unitone.codecs.train` and name it with --decoder"
            )
        device = str(next(loaded.model.parameters()).device)
        name = codec.read_config(folder)["codec"]
        if name != unit_decoder.NAME:
            raise ConfigError(f"{folder} holds a {name}, which does not take units")
        self._decoder = unit_decoder.load(folder, device=device)
        if self._decoder.network.config.speaker_dim is not None:
            raise ConfigError(f"{folder} speaks by embeddings; give a decoder of named voices")
        if loaded.passport is not None:
            require_same(loaded.passport, self._decoder.passport, what=str(folder))
        self._timing: Any = "frames"
        if self._decoder.passport.deduplicate:
            self._timing = "predict"

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the voices it has."""
        return tuple(self._decoder.speakers)

    def say(
        self, units: Sequence[np.ndarray | None], *, speakers: Sequence[str | None]
    ) -> list[Sound | None]:
        """Return the sound of each sequence, None where it is empty; an unknown name is no name.

        The decoder's voices and the model's speakers may differ: who was only heard has no voice.
        """
        known = [name if name in self.speakers else None for name in speakers]
        # one by one: padding to the longest costs more than a batch saves
        return [
            None
            if one is None or not len(one)
            else self._decoder.decode(np.asarray(one), speaker=name, durations=self._timing)
            for one, name in zip(units, known, strict=True)
        ]

    def write(
        self,
        units: Sequence[np.ndarray | None],
        *,
        speakers: Sequence[str | None],
        files_at: Sequence[Path],
    ) -> list[Path | None]:
        """Write the sound of each sequence; return the paths, None where it is empty."""
        sounds = self.say(units, speakers=speakers)
        for sound, path in zip(sounds, files_at, strict=True):
            if sound is not None:
                write_wave(path, sound)
        return [
            None if sound is None else path for sound, path in zip(sounds, files_at, strict=True)
        ]
