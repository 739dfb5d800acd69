"""How sure a corpus score is: bootstrap intervals and a paired test, over utterances.

A corpus score (WER, BLEU, …) is a function of sums over utterances: errors and words, matched and
possible n-grams. So each utterance is boiled down once to a row of counts, and a resample is a sum
of rows; nothing is aligned or cut into n-grams again.

- Interval: percentile bootstrap (Efron 1979; for WER Bisani and Ney 2004, for BLEU Koehn 2004).
- Test: approximate randomization (Noreen 1989), two-sided: under the hypothesis of no difference
  the outputs of the two systems for an utterance may be swapped. Chosen over reading a p-value off
  the bootstrap, which rejects too often (Riezler and Maxwell 2005).

Utterances that belong together, such as those of one speaker, are not independent; with
``clusters`` whole groups are drawn and swapped, which gives the wider, honest interval.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from unitone import seeding
from unitone.errors import ConfigError

LEVEL = 0.95
"""Every interval of the toolkit."""
_BLOCK = 1 << 22
"""Draws held in memory at a time."""
_ROUNDING = 1e-9
"""Differences closer than this share of the observed one count as equal to it."""

ScoreOf = Callable[[Float[np.ndarray, "R K"]], Float[np.ndarray, " R"]]
"""Scores of R corpora, each given as its K sums; NaN where undefined (no reference words)."""
Formulas = Mapping[str, tuple[slice, ScoreOf]]
"""Name of a score → the columns of the counts that it is made of, and how."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A system against another on the same utterances."""

    difference: float
    """This system's score minus the other's."""
    interval: Interval | None
    """95 % interval of the difference, from the same resamples of both."""
    p_value: float
    """Chance of a difference at least as large if the systems were equally good."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    resamples: int = 2000
    """Bootstrap resamples."""
    swaps: int = 10_000
    """Random swaps of the paired test; its smallest p-value is 1 / (swaps + 1)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 100 or self.swaps < 100:
            raise ConfigError(
                "at least 100 resamples and 100 swaps are needed, "
                f"got {self.resamples} and {self.swaps}"
            )


DEFAULT = Resampling()


def clustered(
    counts: Num[np.ndarray, "N K"], clusters: Sequence[Hashable]
) -> Float[np.ndarray, "G K"]:
    """Sum the rows of ``counts`` that share a cluster, in order of first appearance.

    >>> clustered(np.array([[1, 2], [3, 4], [5, 6]]), ["ann", "bob", "ann"])
    array([[6., 8.],
           [3., 4.]])
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(places), counts.shape[1]))
    np.add.at(sums, [places[name] for name in clusters], counts)
    return sums


def interval(
    counts: Num[np.ndarray, "N K"], score: ScoreOf, *, resampling: Resampling = DEFAULT
) -> Interval | None:
    """Return the 95 % percentile bootstrap interval; None for fewer than two rows.

    Args:
        counts: a row for each utterance (or cluster) whose sum determines the score.
        score: from sums to scores.
        resampling: how many resamples, and the seed. The same seed draws the same rows, so
            intervals of two systems on the same utterances are comparable.
    """
    if len(counts) < 2:
        return None
    return _interval(score(_resampled_sums(counts, resampling)))


def compare(
    counts: Num[np.ndarray, "N K"],
    other: Num[np.ndarray, "N K"],
    score: ScoreOf,
    *,
    resampling: Resampling = DEFAULT,
) -> Comparison:
    """Compare two systems whose rows belong to the same utterances, in the same order."""
    both = np.concatenate([counts, other], axis=1).astype(np.float64)
    width = counts.shape[1]

    def difference(sums: Float[np.ndarray, "R K2"]) -> Float[np.ndarray, " R"]:
        return score(sums[:, :width]) - score(sums[:, width:])

    observed = difference(both.sum(axis=0, keepdims=True))[0]
    swapped = difference(_swapped_sums(both, width, resampling))
    reach = abs(observed) * (1 - _ROUNDING) - 1e-12
    extreme = int(np.count_nonzero(np.abs(swapped) >= reach))
    return Comparison(
        difference=float(observed),
        interval=interval(both, difference, resampling=resampling),
        p_value=(extreme + 1) / (resampling.swaps + 1),  # the corpus as it is counts as one
    )


def intervals(
    counts: Num[np.ndarray, "N K"],
    formulas: Formulas,
    *,
    resampling: Resampling = DEFAULT,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, Interval | None]:
    """Return `interval` of each of the scores; equal ``clusters`` are drawn together."""
    rows = counts if clusters is None else clustered(counts, clusters)
    return {
        name: interval(rows[:, columns], score, resampling=resampling)
        for name, (columns, score) in formulas.items()
    }


def comparisons(
    counts: Num[np.ndarray, "N K"],
    other: Num[np.ndarray, "N K"],
    formulas: Formulas,
    *,
    resampling: Resampling = DEFAULT,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, Comparison]:
    """`compare` two systems by each of the scores; equal ``clusters`` are swapped together."""
    one, two = (rows if clusters is None else clustered(rows, clusters) for rows in (counts, other))
    return {
        name: compare(one[:, columns], two[:, columns], score, resampling=resampling)
        for name, (columns, score) in formulas.items()
    }


def _resampled_sums(
    counts: Num[np.ndarray, "N K"], resampling: Resampling
) -> Float[np.ndarray, "R K"]:
    """Draw as many rows as there are, with replacement, and sum them, R times."""
    rows = len(counts)
    generator = seeding.stream(resampling.seed, "bootstrap", rows)
    values = counts.astype(np.float64)
    sums = np.empty((resampling.resamples, counts.shape[1]))
    at_once = max(1, _BLOCK // rows)
    for first in range(0, resampling.resamples, at_once):
        block = sums[first : first + at_once]
        drawn = generator.integers(rows, size=(len(block), rows))
        drawn += np.arange(len(block))[:, None] * rows
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        block[:] = times.astype(np.float64) @ values
    return sums


def _swapped_sums(
    both: Float[np.ndarray, "N K2"], width: int, resampling: Resampling
) -> Float[np.ndarray, "R K2"]:
    """Swap the systems' rows with probability a half each, and sum them, R times."""
    rows = len(both)
    generator = seeding.stream(resampling.seed, "swap", rows)
    gap = both[:, width:] - both[:, :width]
    moved = np.empty((resampling.swaps, width))
    at_once = max(1, _BLOCK // rows)
    for first in range(0, resampling.swaps, at_once):
        block = moved[first : first + at_once]
        bits = np.frombuffer(generator.bytes(len(block) * -(-rows // 8)), np.uint8)
        swap = np.unpackbits(bits.reshape(len(block), -1), axis=1, count=rows)
        block[:] = swap.astype(np.float64) @ gap
    totals: Float[np.ndarray, "R K2"] = both.sum(axis=0) + np.concatenate([moved, -moved], axis=1)
    return totals


def _interval(scores: Float[np.ndarray, " R"]) -> Interval | None:
    defined = scores[~np.isnan(scores)]
    if not defined.size:
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))
