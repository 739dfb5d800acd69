"""The unit decoder: k-means units and a speaker to a waveform, and back through the tokenizer.

A model directory, written by ``python -m unitone.codecs.train``:

    model.safetensors   weights of `unitone.codecs.nn.network.UnitNetwork`, float32
    config.json         {"codec": "unit_decoder", "network": …}, the speakers' names among it
    passport.json       of the tokenizer whose units it understands
    tokenizer/          that tokenizer, where it was given; ``encode`` needs it
    README.md           model card

Laws: T frames are T * hop samples, whatever the units. Output sample n is input sample n: frame t
lies over samples t * hop to t * hop + 400, so a waveform of N samples comes back with its last
400 - hop to 399 samples missing, as it had T = (N - 400) // hop + 1 frames.

Axes: T frames, S runs of equal units, N samples, E width of an external speaker embedding.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from unitone import config, devices, files
from unitone.codecs.codec import Sound, at_rate, check_codes, read_config
from unitone.codecs.nn.backbone import durations_of
from unitone.codecs.nn.network import NetworkConfig, UnitNetwork
from unitone.corpus.audio import Samples
from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.model_dir import CARD, CONFIG, WEIGHTS, reading, resolve
from unitone.tokenizers.kmeans.units import expand
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.tokenizer import Tokenizer, UnitExtractor
from unitone.train.checkpoint import load_finite, save_tensors

NAME = "unit_decoder"
TOKENIZER = "tokenizer"

Timing = Int[np.ndarray, "_"] | Literal["frames", "predict"]
"""What codes are: one a frame; runs with these durations in frames; runs of unknown durations."""
Speaker = str | Float[np.ndarray, "E"] | None


class UnitDecoder:
    """A codec with one level: the unit of each frame."""

    num_levels = 1

    def __init__(
        self, network: UnitNetwork, *, passport: Passport, tokenizer: Tokenizer | None = None
    ) -> None:
        self.name = NAME
        self.network = network.eval()
        self.passport = passport
        """Of the tokenizer; compare it with `unitone.tokenizers.passport.require_same`."""
        self.sample_rate = network.config.sample_rate
        self.frame_rate = network.config.frame_rate
        self.codebook_size = network.config.num_units
        self.speakers = network.config.speakers
        self._tokenizer = tokenizer
        self._extractor: UnitExtractor | None = None

    def encode(self, wave: Samples, rate: int) -> Int32[np.ndarray, "1 T"]:
        """Return the unit of every frame, as the tokenizer has it.

        Raises:
            ValueError: shorter than one frame, or samples that are not finite.
            ConfigError: there is no tokenizer beside the decoder.
        """
        samples = at_rate(wave, rate, wanted=self.sample_rate)
        if self._tokenizer is None:
            raise ConfigError(
                "this unit decoder has no tokenizer, so it can't encode; copy the tokenizer's "
                f"directory into its own as {TOKENIZER}/"
            )
        if self._extractor is None:
            device = next(self.network.parameters()).device
            self._extractor = self._tokenizer.open(device=str(device))
        try:
            units: np.ndarray = self._extractor.of_waveform(samples)[None]
        except CorpusError as error:
            raise ValueError(str(error)) from error
        return units

    def decode(
        self,
        codes: Int[np.ndarray, "..."],
        *,
        speaker: Speaker = None,
        durations: Timing = "frames",
    ) -> Sound:
        """Return the waveform of units ``(T,)`` or ``(1, T)``.

        Args:
            codes: one unit a frame, or runs; see ``durations``.
            speaker: a name out of ``speakers``, or an embedding where the decoder was trained
                with such; None = the first of ``speakers``.
            durations: ``frames``: there is one unit a frame. An array: frames each unit lasts.
                ``predict``: units are runs, and the decoder decides how long each lasts.

        Raises:
            ValueError: wrong shape, a unit outside 0..k-1, durations that don't fit, or an
                unknown speaker.
        """
        return self.decode_batch([codes], speakers=[speaker], durations=[durations])[0]

    def decode_batch(
        self,
        codes: Sequence[Int[np.ndarray, "..."]],
        *,
        speakers: Sequence[Speaker],
        durations: Sequence[Timing],
    ) -> list[Sound]:
        """Decode several sequences at once, each as `decode` would alone; errors as there."""
        if not len(codes) == len(speakers) == len(durations):
            raise ValueError(
                f"{len(codes)} sequences, {len(speakers)} speakers and {len(durations)} durations; "
                "one each is needed"
            )
        sequences = [
            self._frames(one, speaker=speaker, durations=timing)
            for one, speaker, timing in zip(codes, speakers, durations, strict=True)
        ]
        if not sequences:
            return []
        units, valid = self._padded(sequences)
        # the same phases for every call: decoding is a function of its arguments
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            waves = self.network.waves(units, self._speakers(speakers), valid, generator=generator)
        hop = self.network.config.hop
        return [
            Sound(wave[: len(frames) * hop].cpu().numpy(), self.sample_rate)
            for wave, frames in zip(waves, sequences, strict=True)
        ]

    def predict_durations(
        self, units: Int[np.ndarray, "S"], *, speaker: Speaker = None
    ) -> Int32[np.ndarray, "S"]:
        """Return how many frames each run lasts, at least 1; errors as `decode`."""
        runs = self._checked(units)
        tokens, valid = self._padded([runs])
        with torch.no_grad():
            logarithms = self.network.durations(tokens, self._speakers([speaker]), valid)
        predicted: np.ndarray = durations_of(logarithms)[0].cpu().numpy().astype(np.int32)
        return predicted

    def _frames(
        self, codes: Int[np.ndarray, "..."], *, speaker: Speaker, durations: Timing
    ) -> Int32[np.ndarray, "T"]:
        units = self._checked(codes)
        if isinstance(durations, str):
            if durations == "frames":
                return units
            if durations != "predict":
                raise ValueError(f"durations are an array, frames or predict, not {durations!r}")
            durations = self.predict_durations(units, speaker=speaker)
        frames = expand(units, durations)
        if frames.size == 0:
            raise ValueError("there is nothing to decode: all durations are 0")
        return frames

    def _checked(self, codes: Int[np.ndarray, "..."]) -> Int32[np.ndarray, "T"]:
        levels = check_codes(codes, num_levels=1, codebook_size=self.codebook_size)
        units: np.ndarray = levels[0]
        return units

    def _padded(
        self, sequences: Sequence[Int32[np.ndarray, "_"]]
    ) -> tuple[Int[Tensor, "B T"], Tensor]:
        longest = max(map(len, sequences))
        units = np.zeros((len(sequences), longest), np.int64)
        valid = np.zeros((len(sequences), longest), np.bool_)
        for row, sequence in enumerate(sequences):
            units[row, : len(sequence)], valid[row, : len(sequence)] = sequence, True
        device = next(self.network.parameters()).device
        return torch.from_numpy(units).to(device), torch.from_numpy(valid).to(device)

    def _speakers(self, speakers: Sequence[Speaker]) -> Tensor:
        device = next(self.network.parameters()).device
        width = self.network.config.speaker_dim
        if width is None:
            return torch.tensor([self._number(one) for one in speakers], device=device)
        rows = []
        for one in speakers:
            if not isinstance(one, np.ndarray) or one.shape != (width,):
                raise ValueError(f"this decoder needs a speaker embedding of {width} numbers")
            rows.append(torch.from_numpy(one.astype(np.float32)))
        return torch.stack(rows).to(device)

    def _number(self, speaker: Speaker) -> int:
        if speaker is None:
            return 0
        if not isinstance(speaker, str):
            raise ValueError("this decoder knows its speakers by name, not by embedding")
        if speaker not in self.speakers:
            raise ValueError(f"no speaker {speaker!r}; there are {', '.join(self.speakers)}")
        return self.speakers.index(speaker)


def load(path: Path | str, *, device: str = "cpu") -> UnitDecoder:
    """Read a model directory.

    Raises:
        ConfigError: there is no such directory, it is of another codec, or its tokenizer isn't
            the one it was trained with.
        CheckpointError: it is unfinished or damaged.
    """
    path = resolve(path)
    values = read_config(path)
    if values["codec"] != NAME:
        raise ConfigError(f"{path} is a {values['codec']}, not a {NAME}")
    with reading(path / CONFIG):
        settings = config.from_dict(NetworkConfig, values.get("network"), where=str(path / CONFIG))
        network = UnitNetwork(settings, generator=torch.Generator())
    passport = Passport.load(path)
    try:
        network.load_state_dict(load_finite(path / WEIGHTS))
    except RuntimeError as error:
        raise CheckpointError(f"{path / WEIGHTS} is missing or damaged ({error})") from error
    tokenizer = None
    if (path / TOKENIZER).is_dir():
        tokenizer = Tokenizer.load(path / TOKENIZER)
        if tokenizer.passport.hash != passport.hash:
            raise ConfigError(
                f"{path / TOKENIZER} isn't the tokenizer that {path} was trained with"
            )
    return UnitDecoder(network.to(devices.resolve(device)), passport=passport, tokenizer=tokenizer)


@dataclass(frozen=True, kw_only=True)
class Card:
    """The training data, for the model card."""

    utterances: int
    seconds: float
    manifest: str
    split: str | None


def save(
    folder: Path,
    network: UnitNetwork,
    *,
    passport: Passport,
    tokenizer: Tokenizer | None,
    card: Card,
) -> None:
    """Write a model directory into an existing folder; ``config.json`` comes last."""
    weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    save_tensors(folder / WEIGHTS, weights)
    if tokenizer is not None:
        shutil.copytree(
            tokenizer.folder,
            folder / TOKENIZER,
            ignore=shutil.ignore_patterns(".*", "*.html", "log.jsonl", "skipped.jsonl"),
            copy_function=shutil.copyfile,
        )
    passport.save(folder)
    files.write_text(folder / CARD, _readme(network, passport, card))
    files.write_json(folder / CONFIG, {"codec": NAME, "network": config.to_dict(network.config)})


def _readme(network: UnitNetwork, passport: Passport, card: Card) -> str:
    settings = network.config
    size = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    split = f", split {card.split}" if card.split else ""
    head = {
        "mel": "magnitudes by regression, phases by Griffin-Lim: intelligible, of rough sound",
        "istft": "magnitudes and phases, trained against discriminators",
    }
    speakers = (
        ", ".join(settings.speakers)
        if settings.speaker_dim is None
        else f"any, by embeddings of {settings.speaker_dim} numbers"
    )
    return (
        "# Unit decoder\n\n"
        f"Units of {passport.encoder.name} layer {passport.encoder.layer}, "
        f"k = {passport.kmeans.k}, {settings.frame_rate:g} a second, to speech at "
        f"{settings.sample_rate} Hz. {size:.2f} M parameters.\n\n"
        f"- Made by `python -m unitone.codecs.train --head {settings.head}`: "
        f"{head[settings.head]}.\n"
        f"- Trained on {card.utterances} utterances, {card.seconds / 3600:.2f} h "
        f"(`{card.manifest}`{split}). It has the licence that these recordings allow.\n"
        f"- Voices: {speakers}.\n"
        f"- Units of other tokenizers mean nothing to it; passport {passport.hash[:16]}.\n"
        "- Pitch is what units tell of it: with few units, the voice's average. It speaks in the "
        "voices it was trained on; don't use it to pass for somebody.\n\n"
        "```python\n"
        "from unitone.codecs import unit_decoder\n\n"
        "decoder = unit_decoder.load(path)\n"
        "wave, rate = decoder.decode(units, speaker=decoder.speakers[0])\n"
        "```\n"
    )
