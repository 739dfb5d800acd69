"""The options of T2V2's training and decoding, and its sizes; imports nothing slow."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unitone.errors import ConfigError
from unitone.lm.options import LmConfig

SIZES: dict[str, tuple[int, int, int, int]] = {
    # name         dim  layers heads  ffn
    "t2v2-tiny": (128, 2, 4, 512),  # 1M
    "t2v2-micro": (144, 4, 4, 576),  # 3M
    "t2v2-small": (384, 6, 8, 1536),  # 25M: the paper
    "t2v2-base": (640, 10, 10, 2560),  # 110M
    "t2v2-large": (1024, 12, 16, 4096),  # 330M
}

Alignment = Literal["mas", "ctc", "uniform"]


@dataclass(frozen=True, kw_only=True)
class Pieces:
    speech: bool = True
    """Learn masked units without text: the model of speech alone that guides synthesis."""
    synthesis: bool = True
    """Learn masked units with text, and the lengths."""
    correction: bool = True
    """Learn to repair a masked draft."""
    align: Alignment = "mas"
    """How text and units are aligned: monotonic alignment search over the model's own posteriors,
    CTC's best path, or uniformly."""


@dataclass(frozen=True, kw_only=True)
class Options:
    dropout: float = 0.1
    """Of what feed-forwards, attention and convolutions add."""
    upsample: int = 1
    """Frames a unit; 2 where texts in bytes may have more tokens than their speech has units."""
    conditions: bool = True
    """Language and speaker condition synthesis, and languages may be translated into; the paper's
    model has none of it."""
    pieces: Pieces = field(default_factory=Pieces)


T2V2TrainConfig = LmConfig[Options]


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    threshold: float = 0.7
    """Correction: frames that are less sure than this are masked and predicted again."""
    rounds: int = 8
    """Correction: rounds at the most; 0 is CTC alone."""
    beam: int = 1
    """Recognition: above 1, prefix beam search over CTC's posteriors, uncorrected, with so many
    texts; 1 follows the likeliest path."""
    ngrams: Path | None = None
    """Recognition: ARPA file of an n-gram model of words, as KenLM's lmplz writes it; needs a
    beam."""
    ngram_weight: float = 0.5
    """Recognition: of its log-probabilities beside CTC's."""
    word_bonus: float = 0.0
    """Recognition: added for each word, against the n-gram model's love of few."""
    lexicon: Path | None = None
    """Recognition: file with the words that there are, one a line; needs a beam."""
    passes: int = 4
    """Synthesis: passes over the utterance."""
    guidance: float = 1.0
    """Synthesis: weight of what the text adds to the model of speech alone; 0 is without."""
    twin: Literal["current", "masked"] = "current"
    """Synthesis: what the model of speech alone sees, the units so far or none; none is cheaper."""
    temperature: float = 1.0
    """Synthesis: of drawing and of the noise on confidences; 0 draws nothing."""
    length_scale: float = 1.0
    """Synthesis: of the predicted lengths; 1.1 is slower speech."""
    candidates: int = 1
    """Synthesis: of so many, the one that the model recognizes best is taken."""
    verify: bool = False
    """Synthesis: recognize what was made, and make again what isn't the text; what stays wrong is
    marked."""
    repairs: int = 2
    """Synthesis: rounds of that at the most; 0 only marks."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"--threshold must be in 0..1, got {self.threshold:g}")
        for name, least in (
            ("beam", 1),
            ("rounds", 0),
            ("passes", 1),
            ("candidates", 1),
            ("repairs", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("guidance", "temperature"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"--{name} must be 0 or more, got {getattr(self, name):g}")
        for name in ("ngrams", "lexicon"):
            if getattr(self, name) is not None and self.beam == 1:
                raise ConfigError(f"--{name}: goes with beam search; give --beam 16, say")
        for name in ("ngram_weight", "word_bonus"):
            if not -100 <= getattr(self, name) <= 100:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} must be in -100..100, got {getattr(self, name):g}")
        if not 0.1 <= self.length_scale <= 10:
            raise ConfigError(f"--length-scale must be in 0.1..10, got {self.length_scale:g}")
