"""A finished tokenizer directory: passport, centroids, and the encoder they belong to."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int32
from torch import Tensor

from unitone import files
from unitone.corpus.audio import SAMPLE_RATE, Recording, is_path, load
from unitone.corpus.utterance import Skipped, Utterance
from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.tokenizers.encoder import is_standalone
from unitone.tokenizers.extract import Extractor, Features, extract
from unitone.tokenizers.kmeans import kmeans
from unitone.tokenizers.kmeans.segments import units_of
from unitone.tokenizers.options import ExtractorConfig, FrameConfig
from unitone.tokenizers.passport import EncoderPassport, Passport

BUILD = "build.json"
"""What made the tokenizer: options, versions, counts. Only where the encoder lay is read back."""
CENTROIDS = "kmeans.safetensors"
FOLDER = "tokenizer"
"""Where a copy lies inside token shards and model directories."""
PARTS = ("passport.json", CENTROIDS, "units.model", "text.model", BUILD)
"""What travels with whatever was made with a tokenizer; logs and reports don't."""


def copy(tokenizer: Path, folder: Path) -> None:
    """Copy the parts of a tokenizer directory that reading and writing tokens needs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        if (tokenizer / name).is_file():
            with files.replacing(folder / name) as temporary:
                shutil.copyfile(tokenizer / name, temporary)


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """What `load` reads: small, picklable, without the encoder's weights."""

    folder: Path
    passport: Passport
    centroids: Float[np.ndarray, "K D"]
    ssl: str
    """Where the encoder came from when the tokenizer was built."""

    @classmethod
    def load(cls, folder: Path | str) -> "Tokenizer":
        """Read a tokenizer directory and check that its parts belong together.

        Raises:
            ConfigError: there is no such directory.
            CheckpointError: it is unfinished or damaged.
        """
        folder = files.path_of(folder, "a tokenizer directory")
        if not folder.is_dir():
            raise ConfigError(f"--tokenizer {folder}: no such directory")
        passport = Passport.load(folder)
        if not (folder / CENTROIDS).is_file():
            raise CheckpointError(f"{folder} holds no {CENTROIDS}: not a tokenizer directory")
        centroids = kmeans.load(folder / CENTROIDS)
        if kmeans.centroid_hash(centroids) != passport.kmeans.centroid_hash:
            raise CheckpointError(
                f"{folder / CENTROIDS} is not what the passport names; build the tokenizer again"
            )
        return cls(folder=folder, passport=passport, centroids=centroids, ssl=_source(folder))

    def open(
        self, *, ssl: str | None = None, device: str = "auto", threads: int | None = None
    ) -> "UnitExtractor":
        """Load the encoder and check it against the passport.

        >>> units = Tokenizer.load(Path("exp/an4-mfcc")).open()("a.wav")  # doctest: +SKIP

        Raises:
            ConfigError: the encoder's weights aren't those the tokenizer was built with.
            CheckpointError: they can't be read.
        """
        return self.open_as(self.extractor(ssl=ssl, device=device, threads=threads))

    def open_as(self, options: ExtractorConfig) -> "UnitExtractor":
        """Load the encoder as ``options`` say; errors as `open`."""
        extractor = options.open()
        check_encoder(self.passport, extractor, ssl=options.ssl)
        return UnitExtractor(
            passport=self.passport,
            extractor=extractor,
            centroids=torch.from_numpy(self.centroids).to(extractor.device),
        )

    def extractor(self, *, ssl: str | None, device: str, threads: int | None) -> ExtractorConfig:
        """Return how to open the encoder with the passport's settings."""
        passport = self.passport
        return ExtractorConfig(
            ssl=ssl or self.ssl,
            layer=None if is_standalone(ssl or self.ssl) else passport.encoder.layer,
            precision=passport.encoder.precision,
            frames=FrameConfig(
                frame_policy=passport.frames.frame_policy,
                window=passport.frames.window,
                context=passport.frames.context,
            ),
            device=device,
            threads=threads,
        )


@dataclass(frozen=True, kw_only=True)
class _Held:
    """Samples in memory, as the reader of waveforms asks a cut for its audio."""

    samples: Float[np.ndarray, "N"]
    sampling_rate: int = SAMPLE_RATE

    def load_audio(self) -> Float[np.ndarray, "1 N"]:
        return self.samples[None]


@dataclass(frozen=True, kw_only=True)
class UnitExtractor:
    """A tokenizer with its encoder loaded: recordings to units in one call."""

    passport: Passport
    extractor: Extractor
    centroids: Float[Tensor, "K D"]

    def __call__(self, recording: Recording) -> Int32[np.ndarray, "T"]:
        """Return one unit a frame of a recording, given as `unitone.corpus.audio.load` takes it.

        Raises:
            CorpusError: the recording can't be used; the reason says why.
        """
        if is_path(recording):
            return self._extracted(Utterance(id=str(recording), line=1, audio=Path(recording)))
        return self.of_waveform(load(recording))

    def of_waveform(self, samples: Float[np.ndarray, "N"]) -> Int32[np.ndarray, "T"]:
        """Return the units of a waveform at 16 kHz that was looked at; errors as of a call."""
        if self.extractor.num_frames(len(samples)) < 1:
            raise CorpusError(f"{len(samples)} samples at 16 kHz are less than one frame")
        if len(samples) > self.extractor.window_samples:  # window by window, as a file goes through
            held = _Held(samples=samples)
            return self._extracted(Utterance(id="samples", line=1, audio=None, cut=held))
        (features,) = self.extractor.batch([samples])
        return self._units(features)

    def _extracted(self, utterance: Utterance) -> Int32[np.ndarray, "T"]:
        (item,) = extract(self.extractor, [utterance], workers=1, batch_seconds=0.0)
        if isinstance(item, Skipped):
            raise CorpusError(item.reason)
        return self.of(item)

    def of(self, features: Features) -> Int32[np.ndarray, "T"]:
        """Return the unit of every frame of ``features``."""
        return np.concatenate([self._units(chunk) for chunk in features.chunks])

    def _units(self, features: Float[Tensor, "T D"]) -> Int32[np.ndarray, "T"]:
        penalty = self.passport.kmeans.switch_penalty
        return units_of(features, self.centroids, duration_penalty=penalty)


def encoder_passport(extractor: Extractor, precision: str) -> EncoderPassport:
    """Return the part of a passport that names the encoder."""
    encoder = extractor.encoder
    assert precision in ("fp32", "bf16")
    return EncoderPassport(
        name=encoder.name,
        weight_hash=encoder.weight_hash,
        layer=extractor.layer,
        dim=encoder.dim,
        normalize_waveform=encoder.normalize,
        precision="bf16" if precision == "bf16" else "fp32",
    )


def check_encoder(passport: Passport, extractor: Extractor, *, ssl: str) -> None:
    """Refuse an encoder that isn't the one the tokenizer was built with.

    Raises:
        ConfigError: naming the fields that differ.
    """
    theirs = encoder_passport(extractor, passport.encoder.precision)
    names = ("weight_hash", "dim", "normalize_waveform")
    pairs = [(name, getattr(passport.encoder, name), getattr(theirs, name)) for name in names]
    differing = [
        f"{name} ({str(ours)[:16]} against {str(its)[:16]})"
        for name, ours, its in pairs
        if ours != its
    ]
    if differing:
        raise ConfigError(
            f"--ssl {ssl}: not the encoder of this tokenizer's passport; they differ in "
            + ", ".join(differing)
        )


def _source(folder: Path) -> str:
    try:
        made_by = files.read_json(folder / BUILD, cure="build the tokenizer again")
        there = made_by.get("encoder")
        return str(there if there and Path(there).exists() else made_by["options"]["ssl"])
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / BUILD} is missing or damaged; build the tokenizer again"
        ) from error
