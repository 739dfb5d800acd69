"""What a language model trains on: stored tokens, mixed tasks, batches under a token budget.

The order is a pure function of the seed and the number of an epoch window, so that a run resumes
anywhere at once, with any number of workers and processes. Axes: B rows, L positions, Q streams.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm.data.store import TokenStore
from unitone.lm.decoder.codes import widen
from unitone.lm.decoder.layout import Composer, Example
from unitone.lm.decoder.model import NONE, Vectors
from unitone.lm.tasks import Task
from unitone.train import batches

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    max_tokens: int = 8192
    """Positions of a batch, padding included."""
    mixing: Literal["data", "temperature", "weights"] = "weights"
    """Share of a task: its number of examples, that to the power ``temperature``, or by hand: the
    weight of its row in the task table."""
    temperature: float = 0.5
    """Exponent of ``mixing = temperature``; 1 is by data, 0 is equal shares."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weights of ``mixing = weights`` that differ from the table's, such as ``asr 6 tts 4``."""
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
    sample_tokens: int | None = None
    """Unit tokens of a {sample} at the most; default: what the row of the table says."""
    round_examples: int = 4096
    """Examples that are sorted by length together."""

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 8), ("round_examples", 1), ("unit_mask_span", 1)):
            value = getattr(self, name)
            if value < least:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} must be at least {least}, got {value}")
        if self.weights and self.mixing != "weights":
            raise ConfigError(f"--weights goes with --mixing weights, not with {self.mixing}")
        for name, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise ConfigError(f"--weights {name} {weight:g}: a weight must be more than 0")
        if self.sample_tokens is not None and self.sample_tokens < 1:
            raise ConfigError(f"--sample-tokens must be at least 1, got {self.sample_tokens}")
        for name in ("null_share", "unit_mask"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} must be 0 or more and below 1, got {value:g}")


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
class Item:
    """An example before it is put together."""

    task: int
    row: int
    to: int
    """Number of the other language, -1 where the task has none."""
    draw: int
    """Seeds this example's own randomness."""


class Mixture:
    """A `unitone.train.trainer.BatchSource` over a token store."""

    def __init__(
        self,
        config: DataConfig,
        *,
        store: TokenStore,
        composer: Composer,
        table: Sequence[Task],
        context: int,
        seed: int,
    ) -> None:
        """Find every task's examples.

        Raises:
            ConfigError: no utterance has what a task needs; the field is named.
        """
        self._config, self._store, self._composer = config, store, composer
        self._table, self._context, self._seed = tuple(table), context, seed
        self._rows: list[np.ndarray] = []
        self._to: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        for task in self._table:
            composer.check(task)
            rows, to, lengths = store.examples(task, composer)
            longest = min(context, config.max_tokens // 8 * 8 + 1)  # rows are padded to eights
            long = lengths > longest
            if long.any():
                logger.warning(
                    "%s: %d of %d examples are left out: longer than %d, by --context %d and "
                    "--max-tokens %d",
                    *(task.name, int(long.sum()), len(long), longest, context, config.max_tokens),
                )
            if not (~long).any():
                raise ConfigError(
                    f"task {task.name}: no example fits into {longest} positions, by --context "
                    f"{context} and --max-tokens {config.max_tokens}"
                )
            self._rows.append(rows[~long])
            self._to.append(to[~long])
            self._lengths.append(lengths[~long])
        self.identity = store.identity
        """Of the data it draws from."""
        self.shares = self._shares()
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def _shares(self) -> np.ndarray:
        counts = np.array([len(rows) for rows in self._rows], float)
        if self._config.mixing == "weights":
            shares = np.array([task.weight for task in self._table])
        elif self._config.mixing == "temperature":
            shares = counts**self._config.temperature
        else:
            shares = counts
        normalised: np.ndarray = shares / shares.sum()
        return normalised

    def counts(self) -> dict[str, int]:
        """Return how many examples each task has."""
        return {task.name: len(rows) for task, rows in zip(self._table, self._rows, strict=True)}

    def plan(self, window: int) -> list[list[list[Item]]]:
        """Return the batches of an epoch window: rows of items, several in a row if packed."""
        items: list[Item] = []
        lengths: list[np.ndarray] = []
        for number in range(len(self._table)):
            picked, first = self._picked(number, window)
            rows, to = self._rows[number][picked], self._to[number][picked]
            lengths.append(self._lengths[number][picked])
            items += [
                Item(task=number, row=int(row), to=int(other), draw=first + place)
                for place, (row, other) in enumerate(zip(rows, to, strict=True))
            ]
        generator = seeding.stream(self._seed, "batches", window)
        return self._batches(items, np.concatenate(lengths) - 1, generator)

    def _batches(
        self, items: list[Item], lengths: np.ndarray, generator: np.random.Generator
    ) -> list[list[list[Item]]]:
        if not self._config.packing:
            groups = batches.bucket(
                lengths, max_tokens=self._config.max_tokens, generator=generator
            )
            return [[[items[index]] for index in group] for group in groups]
        capacity = min(self._context, self._config.max_tokens)
        packed = batches.pack(lengths, capacity=capacity)
        per_batch = max(1, self._config.max_tokens // capacity)
        order = generator.permutation(len(packed))
        return [
            [[items[index] for index in packed[row]] for row in order[start : start + per_batch]]
            for start in range(0, len(order), per_batch)
        ]

    def _picked(self, number: int, window: int) -> tuple[np.ndarray, int]:
        """Return which examples of a task a window holds, and the number of the first draw."""
        share = self.shares[number] * self._config.round_examples
        first, last = int(np.floor(window * share)), int(np.floor((window + 1) * share))
        count = len(self._rows[number])
        draws = np.arange(first, last)
        epochs, places = np.divmod(draws, count)
        picked = np.empty(len(draws), np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            picked[inside] = self._order(number, int(epoch))[places[inside]]
        return picked, first

    def _order(self, number: int, epoch: int) -> np.ndarray:
        key = (number, epoch)
        if key not in self._orders:
            name = self._table[number].name
            generator = seeding.stream(self._seed, "order", name, epoch)
            self._orders = {old: order for old, order in self._orders.items() if old[0] != number}
            self._orders[key] = generator.permutation(len(self._rows[number]))
        return self._orders[key]

    def load(self, spec: list[list[Item]]) -> Batch:
        """Put the examples of a batch together."""
        return collate([[(item.task, self._example(item)) for item in row] for row in spec])

    def _example(self, item: Item) -> Example:
        task = self._table[item.task]
        sampling = None
        if "sample" in task.fields:
            sampling = seeding.stream(self._seed, "sample", task.name, item.draw)
        record = self._store.record(item.row, to=item.to, sampling=sampling)
        generator = seeding.stream(self._seed, "draw", task.name, item.draw)
        null = self._config.null_share > 0 and generator.random() < self._config.null_share
        example = self._composer.example(task, record, null=null)
        if self._config.unit_mask > 0:
            example = self._masked(example, generator)
        return example

    def _masked(self, example: Example, generator: np.random.Generator) -> Example:
        words = self._composer.vocabulary
        tokens = example.tokens.copy()
        first = tokens if tokens.ndim == 1 else tokens[:, 0]
        inside = np.zeros(len(first), bool)
        for block in (words.block("unit"), *words.codes):
            inside |= (first >= block.start) & (first < block.end) & ~example.target
        span = self._config.unit_mask_span
        starts = generator.random(len(first)) < self._config.unit_mask / span
        hidden = np.convolve(starts, np.ones(span))[: len(first)] > 0
        if tokens.ndim == 2:
            tokens[inside & hidden] = NONE
        first[inside & hidden] = words.id("<mask>")
        return replace(example, tokens=tokens)


def collate(rows: Sequence[Sequence[tuple[int, Example]]]) -> Batch:
    """Lay out rows of (task number, example); a position's target is the token behind it."""
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
