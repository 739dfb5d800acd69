"""T2V2: one conformer for recognition, synthesis and translation, all frames at once.

Goswami, Wang & Harada, ICLR 2025. Tasks differ only by what is summed at the input: units,
text, or text spread over the frames of the units, and, beyond the paper, languages and speakers.
Text comes out by CTC, units by the prediction of masked ones.

    recognition        units                          CTC head
    correction         units + a draft of the text    correction head (CTC)
    synthesis          text, spread + masked units    unit head
    speech alone       masked units                   unit head; the twin of guidance
    length             text                           length head: frames of each token, log
    translation        units, or text spread + to     CTC head, then correction
    language, gender   units                          pooled head

Ids are those of the vocabulary's blocks, from 0. Axes: B rows, T frames, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unitone.errors import ConfigError
from unitone.lm.t2v2.options import SIZES
from unitone.nn.conformer import Conformer, ConformerConfig, initialize

UNKNOWN = -1
"""Language or speaker that isn't given."""


@dataclass(frozen=True, kw_only=True)
class T2V2Config:
    conformer: ConformerConfig
    vocab_size: int
    """Tokens of the vocabulary, all blocks."""
    text: int
    """Text tokens."""
    units: int
    """Unit tokens."""
    languages: int = 0
    """Languages that may condition speech, be translated into, or be told apart."""
    speakers: int = 0
    """Speakers that may condition speech."""
    genders: int = 0
    """Classes of voices that are told apart."""
    upsample: int = 1
    """Frames a unit: 2 where a text in bytes may have more tokens than its speech has units."""
    spread: int = 4
    """Frames a token of a text that is translated."""
    context: int = 2048
    """Frames of the longest utterance."""
    correction: bool = True
    """Whether it has learnt to correct drafts."""
    speech: bool = True
    """Whether it has learnt speech alone, for guidance."""

    def __post_init__(self) -> None:
        for name in ("upsample", "spread"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def size(name: str, *, dropout: float = 0.0, **fields: Any) -> T2V2Config:
    """Return the configuration called ``name``; ``fields`` are the others of `T2V2Config`.

    Raises:
        ConfigError: there is no size of this name.
    """
    if name not in SIZES:
        raise ConfigError(f"no model size {name!r}; there are {', '.join(SIZES)}")
    dim, layers, heads, ffn = SIZES[name]
    conformer = ConformerConfig(dim=dim, layers=layers, heads=heads, ffn=ffn, dropout=dropout)
    return T2V2Config(conformer=conformer, **fields)


class Head(nn.Sequential):
    """Linear, GELU, norm, linear."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__(
            nn.Linear(dim, dim), nn.GELU(approximate="tanh"), nn.LayerNorm(dim), nn.Linear(dim, out)
        )


class T2V2(nn.Module):
    """The embeddings, the conformer, the heads."""

    def __init__(self, config: T2V2Config, *, generator: torch.Generator | None = None) -> None:
        """Build the model; with ``generator`` its weights are drawn from it alone."""
        super().__init__()
        self.config = config
        dim = config.conformer.dim
        self.units = nn.Embedding(config.units + 1, dim)
        self.text = nn.Embedding(config.text + 2, dim)
        self.source = nn.Embedding(config.text, dim) if config.languages else None
        self.into = nn.Embedding(config.languages, dim) if config.languages else None
        self.language = nn.Embedding(config.languages, dim) if config.languages else None
        self.speaker = nn.Embedding(config.speakers, dim) if config.speakers else None
        self.conformer = Conformer(config.conformer)
        self.ctc = Head(dim, config.text + 1)
        self.correction = Head(dim, config.text + 1)
        self.speech = Head(dim, config.units)
        self.length = Head(dim, 1)
        self.classes = nn.ModuleDict(
            {
                name: Head(dim, count)
                for name, count in (("language", config.languages), ("gender", config.genders))
                if count
            }
        )
        if generator is not None:
            initialize(self, generator)

    @property
    def mask_unit(self) -> int:
        """Unit id that stands for a masked one."""
        return self.config.units

    @property
    def fill(self) -> int:
        """Text id that stands for CTC's blank at the input."""
        return self.config.text

    @property
    def mask_text(self) -> int:
        """Text id that stands for a masked frame of a draft."""
        return self.config.text + 1

    def forward(
        self,
        valid: Bool[Tensor, "B T"],
        *,
        units: Int[Tensor, "B T"] | None = None,
        text: Int[Tensor, "B T"] | None = None,
        source: Int[Tensor, "B T"] | None = None,
        to: Int[Tensor, "B"] | None = None,
        language: Int[Tensor, "B"] | None = None,
        speaker: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return the states of frames; what is given is summed.

        Args:
            valid: True at frames.
            units: of each frame, or `mask_unit`.
            text: token of each frame, `fill` or `mask_text`.
            source: token of a text that is translated.
            to: language to translate into, or `UNKNOWN`.
            language: of the speech, or `UNKNOWN`.
            speaker: of the speech, or `UNKNOWN`.
        """
        total = 0.0
        for table, ids in ((self.units, units), (self.text, text), (self.source, source)):
            if ids is not None and table is not None:
                total = total + table(ids)
        for table, ids in ((self.into, to), (self.language, language), (self.speaker, speaker)):
            if ids is not None and table is not None:
                given = (ids != UNKNOWN)[:, None]
                total = total + (table(ids.clamp(min=0)) * given)[:, None]
        assert isinstance(total, Tensor)
        return self.conformer(total, valid)

    def pooled(
        self, states: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"], name: str
    ) -> Float[Tensor, "B C"]:
        """Return the logits of the classes ``name``, from the mean of the valid states."""
        weight = valid[:, :, None].to(states.dtype)
        logits: Tensor = self.classes[name]((states * weight).sum(dim=1) / weight.sum(dim=1))
        return logits


def log_p(logits: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
    """Return log-probabilities in float32."""
    return F.log_softmax(logits.float(), dim=-1)


def frames(lengths: Int[Tensor, "B"], longest: int | None = None) -> Bool[Tensor, "B T"]:
    """Return True at the frames of rows of these lengths."""
    count = int(lengths.max()) if longest is None else longest
    return torch.arange(count, device=lengths.device) < lengths[:, None]
