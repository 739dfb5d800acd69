"""Batches as pure functions of lengths: buckets under a token budget, packed rows, memory.

Axes: N items.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from unitone.errors import ConfigError

Lengths = Int[np.ndarray, "N"]
Number = TypeVar("Number", int, np.ndarray)
Rows = Int[np.ndarray, "_"]
"""Indices of the items of one batch, or of one packed row."""


def bucket(
    lengths: Lengths,
    *,
    max_tokens: int,
    generator: np.random.Generator,
    multiple_of: int = 8,
    names: Sequence[str] | None = None,
) -> list[Rows]:
    """Group items of like length into batches, in random order.

    Every item is in one batch. A batch is padded to its longest item, rounded up to
    ``multiple_of``, and rows times that is at most ``max_tokens``.

    Args:
        lengths: tokens or frames of each item, at least 1.
        max_tokens: of a batch, padding included.
        generator: shuffles items of the same padded length, then the batches.
        multiple_of: padded lengths are multiples of it: fewer shapes, faster kernels.
        names: of the items, for the error.

    Raises:
        ConfigError: an item is longer than ``max_tokens``.
    """
    padded = _checked(lengths, limit=max_tokens, multiple_of=multiple_of, names=names)
    shuffled = generator.permutation(len(lengths))
    order = shuffled[np.argsort(-padded[shuffled], kind="stable")]
    batches: list[Rows] = []
    start = 0
    while start < len(order):
        rows = max_tokens // int(padded[order[start]])
        batches.append(order[start : start + rows])
        start += rows
    return [batches[index] for index in generator.permutation(len(batches))]


def bucket_pairs(
    lengths: Int[np.ndarray, "N 2"],
    *,
    max_tokens: int,
    generator: np.random.Generator,
    multiple_of: int = 8,
) -> list[Rows]:
    """Group items of two lengths, (source, target), into batches, in random order.

    Every item is in one batch. A batch is padded to its longest source and its longest target, and
    rows times the sum of the two is at most ``max_tokens``; arguments and errors as `bucket`.
    """
    padded = np.stack([_round_up(column, multiple_of) for column in lengths.T], axis=1)
    _checked(padded.sum(axis=1), limit=max_tokens, multiple_of=1, names=None)
    shuffled = generator.permutation(len(lengths))
    order = shuffled[np.lexsort((-padded[shuffled, 1], -padded[shuffled, 0]))]
    batches: list[Rows] = []
    start, widest = 0, np.zeros(2, np.int64)
    for place, item in enumerate(order):
        wider = np.maximum(widest, padded[item])
        if (place - start + 1) * int(wider.sum()) > max_tokens:
            batches.append(order[start:place])
            start, wider = place, padded[item]
        widest = wider
    batches += [order[start:]] if len(order) else []
    return [batches[index] for index in generator.permutation(len(batches))]


def pack(lengths: Lengths, *, capacity: int, names: Sequence[str] | None = None) -> list[Rows]:
    """Lay items one after another in rows of ``capacity``, longest first, each where it fits best.

    Best-fit decreasing needs at most 11/9 of the fewest rows possible, and one more (Johnson et
    al. 1974). Items of the same length keep their order, so the caller shuffles by permuting.

    Raises:
        ConfigError: an item is longer than ``capacity``.
    """
    _checked(lengths, limit=capacity, multiple_of=1, names=names)
    rows: list[list[int]] = []
    with_left: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room they have
    rooms = 0  # bit r is set where with_left[r] has a row
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1  # the lowest bit set
            row = with_left[room].pop()
            if not with_left[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        with_left[room - length].append(row)
        rooms |= 1 << (room - length)
    return [np.array(row, dtype=np.int64) for row in rows]


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Peak memory of a step: base + per_token rows length + per_pair rows length^2, in bytes."""

    base: float
    """Weights, gradients, optimizer state."""
    per_token: float
    """Activations of one position."""
    per_pair: float
    """Attention scores, where they are kept; 0 with flash attention."""

    @classmethod
    def fit(cls, points: Sequence[tuple[int, int, float]]) -> "MemoryModel":
        """Return the model nearest to measured ``(rows, length, bytes)``, without negative terms.

        Raises:
            ConfigError: fewer than three points.
        """
        if len(points) < 3:
            raise ConfigError(f"a memory model needs at least 3 measurements, got {len(points)}")
        rows, length, measured = np.array(points, dtype=np.float64).T
        terms = np.stack([np.ones_like(rows), rows * length, rows * length**2], axis=1)
        scales = terms.max(axis=0)
        best, best_error = np.zeros(3), np.inf
        for size in (3, 2, 1):  # the non-negative optimum is a free optimum of some subset
            for chosen in itertools.combinations(range(3), size):
                columns = list(chosen)
                found, *_ = np.linalg.lstsq(terms[:, columns] / scales[columns], measured)
                error = float(
                    np.square(terms[:, columns] / scales[columns] @ found - measured).sum()
                )
                if (found >= 0).all() and error < best_error * (1 - 1e-9):
                    best, best_error = np.zeros(3), error
                    best[columns] = found / scales[columns]
        base, per_token, per_pair = best.tolist()
        return cls(base=base, per_token=per_token, per_pair=per_pair)

    def predict(self, *, rows: int, length: int) -> float:
        """Return the peak memory of a batch, in bytes."""
        return self.base + self.per_token * rows * length + self.per_pair * rows * length**2

    def max_tokens(self, *, budget: float, max_length: int) -> int:
        """Return the largest token budget with which every batch fits into ``budget`` bytes.

        The costliest batch of a token budget is the one with the longest rows.

        Raises:
            ConfigError: not even one row of ``max_length`` fits.
        """
        per_token = self.per_token + self.per_pair * max_length
        if self.predict(rows=1, length=max_length) > budget:
            needed = self.predict(rows=1, length=max_length)
            raise ConfigError(
                f"one row of {max_length} tokens needs {needed / 2**20:.0f} MiB, the budget is "
                f"{budget / 2**20:.0f} MiB; shorten the rows or the model"
            )
        if per_token == 0:
            raise ConfigError("the measurements show no memory per token; measure larger batches")
        return max(int((budget - self.base) / per_token), max_length)


def _checked(
    lengths: Lengths, *, limit: int, multiple_of: int, names: Sequence[str] | None
) -> Lengths:
    """Return the padded lengths."""
    if len(lengths) and int(lengths.min()) < 1:
        raise ConfigError(f"item {_name(int(lengths.argmin()), names)} is empty")
    padded = _round_up(lengths, multiple_of)
    if len(lengths) and int(padded.max()) > limit:
        longest = int(padded.argmax())
        rounded = f" ({padded[longest]} with padding)" if multiple_of > 1 else ""
        raise ConfigError(
            f"item {_name(longest, names)} has {lengths[longest]} tokens{rounded}, more than the "
            f"{limit} a batch may have; raise the limit or leave the item out"
        )
    return padded


def _name(index: int, names: Sequence[str] | None) -> str:
    return str(index) if names is None else names[index]


def _round_up(value: Number, multiple_of: int) -> Number:
    return -(-value // multiple_of) * multiple_of
