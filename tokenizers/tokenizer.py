"""A finished tokeniser directory: passport, centroids, and the encoder they belong to."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers import kmeans
from unitone.tokenizers.extract import Extractor, ExtractorConfig, FrameConfig
from unitone.tokenizers.passport import EncoderPassport, Passport

BUILD = "build.json"
"""What made the tokeniser: options, versions, counts. Only ``ssl`` is ever read back."""
CENTROIDS = "kmeans.safetensors"


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """What `load` reads: small, picklable, without the encoder's weights."""

    folder: Path
    passport: Passport
    centroids: Float[np.ndarray, "K D"]
    ssl: str
    """Where the encoder came from when the tokeniser was built."""

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read a tokeniser directory and check that its parts belong together.

        Raises:
            ConfigError: there is no such directory.
            CheckpointError: it is unfinished or damaged.
        """
        if not folder.is_dir():
            raise ConfigError(f"--tokenizer {folder}: no such directory")
        passport = Passport.load(folder)
        centroids = kmeans.load(folder / CENTROIDS)
        if kmeans.centroid_hash(centroids) != passport.kmeans.centroid_hash:
            raise CheckpointError(
                f"{folder / CENTROIDS} is not what the passport names; build the tokeniser again"
            )
        return cls(folder=folder, passport=passport, centroids=centroids, ssl=_source(folder))

    def extractor(self, *, ssl: str | None, device: str, threads: int | None) -> ExtractorConfig:
        """Return how to open the encoder with the passport's settings."""
        passport = self.passport
        return ExtractorConfig(
            ssl=ssl or self.ssl,
            layer=None if passport.encoder.name == "mfcc" else passport.encoder.layer,
            precision=passport.encoder.precision,
            frames=FrameConfig(
                frame_policy=passport.frames.frame_policy,
                window=passport.frames.window,
                context=passport.frames.context,
            ),
            device=device,
            threads=threads,
        )


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
    """Refuse an encoder that isn't the one the tokeniser was built with.

    Raises:
        ConfigError: naming the fields that differ.
    """
    theirs = encoder_passport(extractor, passport.encoder.precision)
    differing = [
        f"{name} ({getattr(passport.encoder, name)} against {getattr(theirs, name)})"
        for name in ("weight_hash", "dim", "normalize_waveform")
        if getattr(passport.encoder, name) != getattr(theirs, name)
    ]
    if differing:
        raise ConfigError(
            f"--ssl {ssl}: not the encoder of this tokeniser's passport; they differ in "
            + ", ".join(differing)
        )


def _source(folder: Path) -> str:
    try:
        return str(json.loads((folder / BUILD).read_text(encoding="utf-8"))["options"]["ssl"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder / BUILD} is missing or damaged; build the tokeniser again"
        ) from error
