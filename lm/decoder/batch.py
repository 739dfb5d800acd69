"""How records become the batches of the decoder-only model, and what an example costs.

Axes: B rows, L positions, Q streams, U utterances.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from unitone.lm.data.fields import Record
from unitone.lm.data.mixture import Sizes
from unitone.lm.decoder.codes import widen
from unitone.lm.decoder.layout import Example, PromptFormatter
from unitone.lm.decoder.model import NONE, Vectors
from unitone.lm.decoder.options import BatchConfig
from unitone.lm.decoder.template import DecoderTask


@dataclass(frozen=True, kw_only=True)
class Batch:
    tokens: Int[Tensor, "B L"] | Int[Tensor, "B L Q"]
    targets: Int[Tensor, "B L"] | Int[Tensor, "B L Q"]
    """What follows each position; `NONE` where nothing is learnt."""
    tasks: Int[Tensor, "B L"]
    """Number of each position's task in the table."""
    positions: Int[Tensor, "B L"] | None
    """None = 0, 1, … in every row."""
    segments: Int[Tensor, "B L"] | None
    """Which sequence of its row a position belongs to; None = one a row."""
    vectors: dict[str, Vectors]
    padding: float
    """Share of positions that hold nothing."""


def plain(tokens: Int[Tensor, "B L *Q"]) -> Batch:
    """Return rows of one task in which every position but the first is learnt."""
    rows, length = tokens.shape[:2]
    return Batch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        tasks=tokens.new_zeros(rows, length - 1),
        positions=None,
        segments=None,
        vectors={},
        padding=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class DecoderBatching:
    """A `unitone.lm.data.mixture.Batching` of next-token examples."""

    formatter: PromptFormatter
    tasks: tuple[DecoderTask, ...]
    context: int
    """Positions of the model."""
    max_tokens: int
    """Positions of a batch, padding included."""
    config: BatchConfig = field(default_factory=BatchConfig)

    def fields(self, task: int) -> tuple[str, ...]:
        """Return the fields of the template."""
        return self.tasks[task].fields

    def cost(self, task: int, sizes: Sizes) -> Int[np.ndarray, "U"]:
        """Return the positions: the last token is predicted, but never read."""
        return self.formatter.lengths(self.tasks[task], sizes) - 1

    def example(self, task: int, record: Record, generator: np.random.Generator) -> Example:
        """Return the sequence, its condition dropped or masked as the configuration says."""
        null = self.config.null_share > 0 and generator.random() < self.config.null_share
        example = self.formatter.example(self.tasks[task], record, null=null)
        return self._masked(example, generator) if self.config.unit_mask > 0 else example

    def collate(self, rows: Sequence[Sequence[tuple[int, Example]]]) -> Batch:
        """Return the batch of rows."""
        return collate(rows)

    @property
    def longest(self) -> int:
        """The context, or a batch of one row, which is padded to eights."""
        return min(self.context - 1, self.max_tokens // 8 * 8)

    @property
    def capacity(self) -> int | None:
        """Of a packed row."""
        return min(self.context, self.max_tokens) if self.config.packing else None

    def _masked(self, example: Example, generator: np.random.Generator) -> Example:
        words = self.formatter.vocabulary
        tokens = example.tokens.copy()
        first = tokens if tokens.ndim == 1 else tokens[:, 0]
        inside = np.zeros(len(first), bool)
        for block in (words.block("unit"), *words.codes):
            inside |= (first >= block.start) & (first < block.end) & ~example.target
        span = self.config.unit_mask_span
        starts = generator.random(len(first)) < self.config.unit_mask / span
        hidden = np.convolve(starts, np.ones(span))[: len(first)] > 0
        if tokens.ndim == 2:
            tokens[inside & hidden] = NONE
        first[inside & hidden] = words.id("<mask>")
        return replace(example, tokens=tokens)


def collate(rows: Sequence[Sequence[tuple[int, Example]]]) -> Batch:
    """Lay out rows of (task number, example); a position's target is the token after it."""
    packed = any(len(row) > 1 for row in rows)
    length = max(sum(len(example) - 1 for _, example in row) for row in rows)
    length = -(-length // 8) * 8
    streams = max(_streams(example) for row in rows for _, example in row)
    shape = (len(rows), length) if streams == 1 else (len(rows), length, streams)
    tokens = np.zeros(shape, np.int64)
    targets = np.full(shape, NONE, np.int64)
    tasks, positions = np.zeros(shape[:2], np.int64), np.zeros(shape[:2], np.int64)
    segments = np.full(shape[:2], -1, np.int64)
    vectors: dict[str, tuple[list[np.ndarray], np.ndarray]] = {}
    for number, row in enumerate(rows):
        start = 0
        for segment, (task, example) in enumerate(row):
            end = start + len(example) - 1
            wide = widen(example.tokens, streams)
            tokens[number, start:end] = wide[:-1]
            learnt = example.target[1:].reshape(-1, *[1] * (len(shape) - 2))
            targets[number, start:end] = np.where(learnt, wide[1:], NONE)
            tasks[number, start:end] = task
            positions[number, start:end] = np.arange(end - start)
            segments[number, start:end] = segment
            for kind, (values, where) in example.vectors.items():
                found = vectors.setdefault(kind, ([], np.zeros(shape[:2], bool)))
                found[0].append(values[: int(where[:-1].sum())])
                found[1][number, start:end] = where[:-1]
            start = end
    return Batch(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(targets),
        tasks=torch.from_numpy(tasks),
        positions=torch.from_numpy(positions) if packed else None,
        segments=torch.from_numpy(segments) if packed else None,
        vectors={
            kind: Vectors(
                values=torch.from_numpy(np.concatenate(values)), where=torch.from_numpy(where)
            )
            for kind, (values, where) in vectors.items()
        },
        padding=float((segments < 0).mean()),
    )


def _streams(example: Example) -> int:
    return 1 if example.tokens.ndim == 1 else example.tokens.shape[1]
