"""Options of the commands that the families share; nothing here imports torch."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from unitone.errors import ConfigError
from unitone.train.config import TrainConfig

Options = TypeVar("Options")
"""A family's own options of ``lm.train``."""
Precision = Literal["fp32", "bf16"]
"""Of weights on disk or in memory."""
DecodingPrecision = Literal["fp32", "bf16", "int8"]
"""int8: fp32 in memory, of which what generates makes matrices in int8."""
Pattern = Literal["delay", "flat"]
"""How codes lie in a sequence: side by side, each level a step later, or one after the other."""

MAX_TOKENS = 32_768
"""Positions that are in memory at a time, unless the user says otherwise: prompts and what may be
generated after them, padding included, of every beam, candidate and twin."""

TRAINING = TrainConfig(
    steps=20_000,
    lr=1e-3,
    optimizer="muon",
    weight_decay=0.05,
    warmup_steps=200,
    decay_share=0.3,
    best="loss",
    validate_every=1000,
)


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    max_tokens: int = 8192
    """Positions of a batch, padding included."""
    mixing: Literal["data", "temperature", "weights"] = "weights"
    """Share of a task: its number of examples, that to the power ``temperature``, or by hand: the
    weight of its row in the task table."""
    temperature: float = 0.5
    """Exponent of ``mixing = temperature``; 1 is by data, 0 is equal shares."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weights of ``mixing = weights`` that differ from the table's, such as ``asr 6 tts 4``."""
    window_examples: int = 4096
    """Examples of an epoch window, which are sorted by length together."""

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 8), ("window_examples", 1)):
            value = getattr(self, name)
            if value < least:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} must be at least {least}, got {value}")
        if not 0 <= self.temperature <= 1:
            raise ConfigError(f"--temperature must be from 0 to 1, got {self.temperature:g}")
        if self.weights and self.mixing != "weights":
            raise ConfigError(f"--weights goes with --mixing weights, not with {self.mixing}")
        for name, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise ConfigError(f"--weights {name} {weight:g}: a weight must be more than 0")


@dataclass(frozen=True, kw_only=True)
class LmConfig(Generic[Options]):
    tokens: Path
    """Token shards, of ``python -m tokenizers.encode``."""
    out: Path
    """Folder of the run."""
    config: str = "lm-mini"
    """Size of the model, whose name says the family; they are listed above."""
    tasks: tuple[str, ...] = ()
    """Tasks of the table; default: all."""
    tokenizer: Path | None = None
    """Tokenizer directory; default: the copy inside the shards."""
    split: tuple[str, ...] = ("train",)
    """Splits that are learnt."""
    valid_split: tuple[str, ...] = ("dev",)
    """Splits that validation looks at."""
    split_by: str | None = None
    """Where the corpus has no splits, makes train, dev and test (90, 5 and 5 in a hundred) by the
    hash of this: utterance, speaker (nobody is in two of them), text or language."""
    valid_utterances: int = 32
    """Utterances that validation decodes for each task; 0 looks at the loss only."""
    context: int = 1024
    """Longest sequence, in positions; longer examples are left out and counted."""
    decoder: Path | None = None
    """Unit decoder of ``python -m codecs.train``, or the codec of the codes, that the model
    directories carry a copy of, so that they can speak."""
    features: Path | None = None
    """Folder of ``python -m tokenizers.features``, for tasks that read {features}."""
    speaker_embeddings: Path | None = None
    """Safetensors file with a vector for every utterance id or speaker, for tasks that read
    {voice}."""
    options: Options
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    train: TrainConfig = TRAINING


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    tokens: Path | None = None
    """Token shards of the model's tokenizer."""
    manifest: Path | None = None
    """Instead: Lhotse cuts, plain or NeMo JSON lines, or a fairseq TSV."""
    split: str | None = None
    """Only the utterances of this split."""
    split_by: str | None = None
    """Of shards without splits: what `--split-by` of the training was."""
    limit: int | None = None
    """Only the first so many."""
    speaker: str | None = None
    """Of every utterance, instead of its own: whose voice speaks."""
    language: str | None = None
    """Of every utterance, instead of its own."""
    ssl: str | None = None
    """The speech encoder, where it lies elsewhere than when the tokenizer was built."""
    speaker_embeddings: Path | None = None
    """Safetensors file with a vector for every utterance id or speaker, for tasks that read
    {voice}."""
    workers: int = 2
    """Threads that decode audio."""
