"""The decoder-only family's sizes and options; nothing here imports torch."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from unitone.errors import ConfigError
from unitone.lm.decoder.template import Decoding
from unitone.lm.options import LmConfig, Pattern

SIZES: dict[str, tuple[int, int, int, int, int, bool]] = {
    # name        dim  layers heads kv  ffn  tied
    "lm-tiny": (192, 4, 3, 3, 512, True),  # 2M
    "lm-micro": (192, 6, 3, 3, 512, True),  # 3M
    "lm-mini": (256, 6, 4, 4, 704, True),  # 5M
    "lm-small": (512, 9, 8, 8, 1408, True),  # 29M
    "lm-160m": (1024, 12, 16, 16, 2752, False),  # PolySpeech
    "lm-350m": (1024, 24, 16, 16, 2816, False),  # VoxtLM base
    "lm-1.3b": (2048, 24, 32, 8, 6656, False),  # VoxtLM large
}


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    packing: bool = False
    """Several sequences a row, up to the model's context, none of which sees another; else rows of
    similar length."""
    null_share: float = 0.0
    """Share of examples whose condition is dropped, for classifier-free guidance; 0.1 is usual."""
    unit_mask: float = 0.0
    """Share of a condition's unit tokens, or of its positions with codes, that are hidden, in
    spans, as augmentation."""
    unit_mask_span: int = 4
    """Mean length of such a span, in tokens."""

    def __post_init__(self) -> None:
        if self.unit_mask_span < 1:
            raise ConfigError(f"--unit-mask-span must be at least 1, got {self.unit_mask_span}")
        for name in ("null_share", "unit_mask"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} must be 0 or more and below 1, got {value:g}")


@dataclass(frozen=True, kw_only=True)
class Options:
    init: Path | None = None
    """Start from this model; its shape replaces --config. One of ours, for shards of the same
    tokenizer, or a text model, a Hugging Face directory of the Llama or OPT kind. It has to stay
    until the run is done."""
    table: Literal["unitone", "voxtlm", "polyspeech", "codes"] = "unitone"
    """Task table: how the tasks are laid out."""
    rows: Path | None = None
    """JSON list of rows that join the table, or take the place of those with their names."""
    codes_pattern: Pattern | None = None
    """How codec codes lie in a sequence, for tasks with {codes}: delay (side by side, each level a
    step later; the default) or flat (one after the other)."""
    code_levels: int | None = None
    """The first so many levels of the codes; default: all that the shards have."""
    dropout: float = 0.0
    """Of what attention and feed-forward add."""
    label_smoothing: float = 0.0
    """Share of a target's probability that is spread over the vocabulary; 0.1 is usual."""
    ctc: float = 0.0
    """Weight of a CTC loss at the positions of the speech, in recognition; 0.3 to 1 is usual. It
    finds the alignment where there is little data. Speech shorter than its text, in tokens, counts
    nothing; units without subwords are long enough."""
    checkpoint_activations: bool = False
    """Compute the blocks' inside again in the backward pass: less memory, a third more work."""
    prompt_tokens: int | None = None
    """Unit tokens of {prompt_units} at the most; default: what the row of the table says."""
    batch: BatchConfig = field(default_factory=BatchConfig)

    def __post_init__(self) -> None:
        if self.prompt_tokens is not None and self.prompt_tokens < 1:
            raise ConfigError(f"--prompt-tokens must be at least 1, got {self.prompt_tokens}")
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} must be in [0, 1), got {getattr(self, name)}")


DecoderConfig = LmConfig[Options]


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Instead of the task's own settings."""

    beam: int | None = None
    """Hypotheses kept; 1 is greedy or, with a temperature, sampling."""
    length_penalty: float | None = None
    """Exponent of the length that a hypothesis' score is divided by."""
    temperature: float | None = None
    """0 takes the likeliest token; above, tokens are drawn."""
    top_k: int | None = None
    """Draw from the k likeliest; 0 is all."""
    top_p: float | None = None
    """Draw from the likeliest tokens that hold this much probability."""
    repetition_penalty: float | None = None
    """Divides the logits of tokens that were emitted before."""
    no_repeat: int | None = None
    """Forbid a run of this many tokens to come back; 0 allows it."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is without."""
    candidates: int | None = None
    """Drawn for each utterance, of which the inverse task chooses."""
    max_tokens: int | None = None
    """Hard cap on new tokens; what reaches it is marked as truncated."""
    max_ratio: float | None = None
    """Cap of new tokens per token of the prompt, plus 10; 0 is none."""
    min_tokens: int | None = None
    """No end before so many tokens."""

    def of(self, decoding: Decoding) -> Decoding:
        """Return ``decoding`` with what is given here; a search that is asked for doesn't draw."""
        given = {name: one for name, one in asdict(self).items() if one is not None}
        if given.get("temperature") == 0 or given.get("beam", 1) > 1:
            given = {"temperature": 0.0, "top_k": 0, "top_p": 1.0} | given
        return replace(decoding, **given)
