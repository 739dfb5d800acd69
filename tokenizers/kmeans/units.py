"""Run-length form of a unit sequence: repeated frames collapse into one unit and a duration.

Lakhotia et al. 2021 (GSLM), arXiv 2102.01192: a language model reads the collapsed units; the
durations, in frames, bring the timing back. Axes: T frames, S runs (S <= T).
"""

import numpy as np
from jaxtyping import Int, Int32


def deduplicate(
    units: Int[np.ndarray, "T"],
) -> tuple[Int32[np.ndarray, "S"], Int32[np.ndarray, "S"]]:
    """Collapse equal neighbors; return the units and how many frames each lasts (at least 1).

    Raises:
        ValueError: a unit is negative.
    """
    if units.size == 0:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    _reject_negative("unit", units)
    starts = np.flatnonzero(units[1:] != units[:-1]) + 1
    starts = np.concatenate((np.zeros(1, starts.dtype), starts))
    durations = np.diff(starts, append=units.size)
    return units[starts].astype(np.int32), durations.astype(np.int32)


def expand(units: Int[np.ndarray, "S"], durations: Int[np.ndarray, "_"]) -> Int32[np.ndarray, "T"]:
    """Repeat every unit for its duration in frames: the inverse of ``deduplicate``.

    A duration of 0 drops the unit, so that predicted durations can be used as they come.

    Raises:
        ValueError: the two differ in length, or a unit or a duration is negative.
    """
    if units.size != durations.size:
        raise ValueError(f"{units.size} units have {durations.size} durations; one each is needed")
    _reject_negative("unit", units)
    _reject_negative("duration", durations)
    return np.repeat(units, durations).astype(np.int32)


def _reject_negative(what: str, values: Int[np.ndarray, "S"]) -> None:
    if values.size and values.min() < 0:
        place = int(np.argmax(values < 0))
        raise ValueError(f"{what} {int(values[place])} at position {place} is negative")
