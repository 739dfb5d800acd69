"""Faults of synthesis, planted into good units, so that their detection can be measured.

Axes: U units, V units with the fault.
"""

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

Kind = Literal[
    "repeated_end", "stutter", "extra_word", "dropped_word", "start_burst", "truncation", "stall"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

BURST = (4, 12)
"""Units of a burst, from and below."""
STALL = (12, 30)
"""Units more while speech stands still."""
CUT = (0.2, 0.5)
"""Share of an utterance that is cut off, where its words aren't known."""


def plant(
    units: Int[np.ndarray, "U"],
    kind: Kind,
    generator: np.random.Generator,
    *,
    num_units: int,
    words: Sequence[tuple[int, int]] = (),
    deduplicated: bool = False,
) -> Int[np.ndarray, "V"]:
    """Return units with a fault.

    Args:
        units: of an utterance, four or more.
        kind: of the fault.
        generator: where, how long and which units.
        num_units: different units there are.
        words: first unit and the one after the last of each word; default: stretches of a fifth.
        deduplicated: no unit follows itself: speech stands still in two units by turns.

    Raises:
        ValueError: fewer than four units, or a dropped word that is the only one.
    """
    if len(units) < 4:
        raise ValueError(f"{len(units)} units are too few for a fault; four or more are needed")
    spans = [*words] or _stretches(len(units))
    first, last = spans[int(generator.integers(len(spans)))]
    if kind == "repeated_end":
        made = np.concatenate((units, units[spans[-1][0] :]))
    elif kind == "stutter":  # the beginning of a word, once or twice more
        stop = first + max((last - first) // 2, min(2, last - first))
        made = np.insert(units, first, np.tile(units[first:stop], int(generator.integers(1, 3))))
    elif kind == "extra_word":
        other, end = spans[int(generator.integers(len(spans)))]
        made = np.insert(units, last, units[other:end])
    elif kind == "dropped_word":
        if len(spans) < 2:
            raise ValueError("the only word can't be dropped")
        made = np.delete(units, np.arange(first, last))
    elif kind == "start_burst":
        made = np.concatenate((generator.integers(num_units, size=_drawn(BURST, generator)), units))
    elif kind == "truncation":
        most = round(generator.uniform(*CUT) * len(units))
        made = units[: spans[-1][0] if words else len(units) - max(most, 1)]
    else:
        made = _stalled(units, generator, two=deduplicated)
    changed = made.astype(units.dtype)
    if deduplicated:
        changed = changed[np.diff(changed, prepend=-1) != 0]
    return changed


def _stretches(count: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, count, min(5, count // 2) + 1).round().astype(int).tolist()
    return list(itertools.pairwise(edges))


def _drawn(bounds: tuple[int, int], generator: np.random.Generator) -> int:
    return int(generator.integers(*bounds))


def _stalled(units: np.ndarray, generator: np.random.Generator, *, two: bool) -> np.ndarray:
    place = int(generator.integers(1, len(units) - 1))
    more = _drawn(STALL, generator)
    held = np.resize(units[place - 1 : place + 1] if two else units[place : place + 1], more)
    return np.insert(units, place + 1, held)
