"""Predictions to sound; units and codes through a unit decoder or the codec of the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from unitone import files, model_dir
from unitone.codecs import codec, unit_decoder
from unitone.codecs.codec import Codec, Sound, write_wave
from unitone.codecs.unit_decoder import UnitDecoder
from unitone.errors import ConfigError, choices
from unitone.lm.data.fields import CodesOfModel
from unitone.lm.family import LoadedModel
from unitone.lm.predictor import Prediction
from unitone.tokenizers.passport import require_same

Speech = Literal["units", "codes", "waveform"]
"""What sound is made of; a waveform is sound already."""
SPOKEN: dict[str, Speech] = {
    "units": "units",
    "codes": "codes",
    "mel": "waveform",
    "waveform": "waveform",
}
"""By a task's output; a family that predicts mel frames makes the waveform itself."""


def open_codec(folder: Path, codes: CodesOfModel, *, device: str = "cpu") -> Codec:
    """Read the codec in ``folder``, which must be the one of a model's codes.

    Raises:
        ConfigError: it is another one; the fields that differ are named.
        CheckpointError: it is damaged.
    """
    opened = codec.load(folder, device=device)
    require_same(codes.codec, codec.passport_of(folder, opened), what=str(folder))
    return opened


def codec_of(loaded: LoadedModel, decoder: Path | None) -> Codec:
    """Open ``decoder``, or the model's own codec; errors as `open_codec`."""
    folder = decoder or loaded.decoder
    if loaded.codes is None:
        raise ConfigError(f"{loaded.folder} has no codes of a codec")
    if folder is None:
        raise ConfigError(
            f"{loaded.folder} has no codec of its own: name the directory of "
            f"{loaded.codes.codec} with --decoder"
        )
    return open_codec(folder, loaded.codes, device=loaded.device)


class SpeechDecoder:
    """A unit decoder or codec that fits a model."""

    def __init__(
        self, loaded: LoadedModel, *, decoder: Path | None = None, speech: Speech = "units"
    ) -> None:
        """Open ``decoder``, or the model's own.

        Raises:
            ConfigError: there is none, or it is of another tokenizer or codec.
            CheckpointError: it is damaged.
        """
        self._codec = codec_of(loaded, decoder) if speech == "codes" else None
        self.identity = "" if loaded.codes is None else loaded.codes.codec.weight_hash
        """Hash of its weights."""
        self._decoder: UnitDecoder | None = None
        if speech == "units":
            self._open_decoder(loaded, decoder)

    def _open_decoder(self, loaded: LoadedModel, decoder: Path | None) -> None:
        folder = decoder or loaded.decoder
        if folder is None:
            raise ConfigError(
                f"{loaded.folder} has no unit decoder, so it can't speak: train one with "
                "`python -m unitone.codecs.train` and name it with --decoder"
            )
        name = codec.read_config(folder)["codec"]
        if name != unit_decoder.NAME:
            raise ConfigError(f"{folder} holds a {name}, which does not take units")
        opened = unit_decoder.load(folder, device=loaded.device)
        self.identity = files.sha256(model_dir.resolve(folder) / model_dir.WEIGHTS)
        if opened.network.config.speaker_dim is not None:
            raise ConfigError(
                f"{folder} speaks by speaker embeddings; give a decoder of named speakers"
            )
        if loaded.passport is not None:
            require_same(loaded.passport, opened.passport, what=str(folder))
        self._decoder = opened
        self._timing: Any = "predict" if opened.passport.deduplicate else "frames"

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers it has; none where codes say whose voice it is."""
        return () if self._decoder is None else tuple(self._decoder.speakers)

    def decode(
        self, predictions: Sequence[Prediction], *, speakers: Sequence[str | None]
    ) -> list[Sound | None]:
        """Return the sound of each prediction, None where it is empty; errors as `require`."""
        for name in speakers:
            self.require(name)
        # one by one: padding to the longest costs more than a batch saves
        return [self._sound(one, name) for one, name in zip(predictions, speakers, strict=True)]

    def require(self, speaker: str | None) -> None:
        """Refuse who was not heard in training; codes hold their voice, None is the first one.

        Raises:
            ConfigError: the unit decoder's speakers, which may be others than the model's, are
                named.
        """
        if self._decoder is not None and speaker is not None and speaker not in self.speakers:
            raise ConfigError(
                f"the unit decoder has not heard speaker {speaker!r}; it has "
                f"{choices(speaker, self.speakers)}"
            )

    def _sound(self, prediction: Prediction, speaker: str | None) -> Sound | None:
        tokens = prediction.speech
        if tokens is None or not tokens.size:
            return prediction.waveform
        if self._codec is not None:
            return self._codec.decode(tokens)
        assert self._decoder is not None
        return self._decoder.decode(tokens, speaker=speaker, durations=self._timing)

    def write(
        self,
        predictions: Sequence[Prediction],
        *,
        speakers: Sequence[str | None],
        files_at: Sequence[Path],
    ) -> list[Path | None]:
        """Write the sound of each prediction; return the paths, None where it is empty."""
        sounds = self.decode(predictions, speakers=speakers)
        for sound, path in zip(sounds, files_at, strict=True):
            if sound is not None:
                write_wave(path, sound)
        return [
            None if sound is None else path for sound, path in zip(sounds, files_at, strict=True)
        ]
