"""The passport: what a tokenizer is, checked wherever two artifacts meet.

Units of one tokenizer mean nothing to another. So whatever carries units (shards, a language model,
a unit decoder) carries the passport of the tokenizer that made them, and two artifacts work
together only if their passports agree in every field that decides what a unit is.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from unitone import config, files
from unitone.corpus.audio import SAMPLE_RATE
from unitone.errors import CheckpointError, ConfigError

FILE = "passport.json"
FORMAT = 1
"""Raised when a field changes its meaning."""


@dataclass(frozen=True, kw_only=True)
class EncoderPassport:
    name: str
    """Family and size: ``mfcc``, ``wavlm-large``."""
    weight_hash: str
    """SHA-256 of the weights, the same for every file form of them."""
    layer: int
    """Output of this transformer block, 1-based; 0 for MFCC."""
    dim: int
    normalize_waveform: bool
    precision: Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class FramesPassport:
    frame_policy: Literal["exact", "ceil", "pad_to_hop"]
    window: float
    """Seconds; longer recordings go through window by window."""
    context: float
    """Seconds on both sides of a window."""
    frame_rate: float
    """Hz."""
    sample_rate: int = SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class KMeansPassport:
    k: int
    centroid_hash: str
    """SHA-256 of the float32 centroids."""
    switch_penalty: float = 0.0
    """Price of a change of unit, a squared distance; 0: each frame's nearest centroid."""


@dataclass(frozen=True, kw_only=True)
class SubwordsPassport:
    kind: Literal["sentencepiece", "characters", "bytes"]
    size: int
    """Entries."""
    model_hash: str


@dataclass(frozen=True, kw_only=True)
class Passport:
    encoder: EncoderPassport
    frames: FramesPassport
    kmeans: KMeansPassport
    deduplicate: bool
    """Whether runs of one unit are stored as the unit and its duration."""
    unit_pieces: SubwordsPassport | None
    """Subwords over the units; None = the units themselves."""
    text: SubwordsPassport
    format: int = FORMAT

    @property
    def hash(self) -> str:
        """SHA-256 of the passport in canonical JSON."""
        values = config.to_dict(self)
        if not self.kmeans.switch_penalty:  # passports from before there was one keep their hash
            del values["kmeans"]["switch_penalty"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``passport.json`` into ``folder``."""
        files.write_json(folder / FILE, config.to_dict(self))

    @classmethod
    def load(cls, folder: Path | str) -> "Passport":
        """Read ``passport.json`` of ``folder``.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise CheckpointError(
                f"{folder} holds no {FILE}: not a finished tokenizer; "
                "run `python -m tokenizers.build` to the end"
            )
        values = files.read_json(path, cure="build the tokenizer again")
        if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
            raise CheckpointError(
                f"{path} has format {values['format']}, this version reads format {FORMAT}"
            )
        return config.from_dict(cls, values, where=str(path))


@dataclass(frozen=True, kw_only=True)
class CodecPassport:
    """What a code is: the codec that made it."""

    name: str
    """Its kind: encodec, dac, mimi, unit_decoder."""
    weight_hash: str
    """SHA-256 over the weights."""
    levels: int
    """Levels it has; coarsest first, and the first n of them are codes of their own."""
    codebook_size: int
    frame_rate: float
    """Hz."""
    sample_rate: int
    """Hz."""

    def __str__(self) -> str:
        return f"{self.name} {self.weight_hash[:12]}"


AnyPassport = TypeVar("AnyPassport", Passport, CodecPassport)


def differences(ours: AnyPassport, theirs: AnyPassport) -> list[str]:
    """Return a line ``field: ours, theirs`` for every field in which two passports differ."""
    return list(_differences("", config.to_dict(ours), config.to_dict(theirs)))


def require_same(ours: AnyPassport, theirs: AnyPassport, *, what: str) -> None:
    """Refuse to let two artifacts work together that different tokenizers or codecs have made.

    Raises:
        ConfigError: naming every field that differs.
    """
    found = differences(ours, theirs)
    if found:
        raise ConfigError(f"{what}: the passports differ in " + "; ".join(found))


def _differences(prefix: str, ours: Any, theirs: Any) -> list[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for name in ours
            for line in _differences(f"{prefix}{name}.", ours[name], theirs.get(name))
        ]
    if ours == theirs:
        return []
    return [f"{prefix.rstrip('.')} ({_short(ours)} against {_short(theirs)})"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:16]}…"
