"""Words with times and confidences, out of the frames that a text was read off.

CTC says at which frame a token comes; durations of the units say when that frame is. A word begins
with the first frame of its first token and ends with the last one of its last; blanks within it are
its own, blanks between words nobody's. Axes: T frames of the model, U units, S tokens.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from unitone.lm.predictor import Word

Decode = Callable[[list[int]], str]
"""Text ids to text."""


def edges(ids: Sequence[int], decode: Decode) -> list[int]:
    """Return the places between tokens where no word is cut, both ends among them."""
    whole = decode([*ids]).split()
    inside = [
        place
        for place in range(1, len(ids))
        if decode([*ids[:place]]).split() + decode([*ids[place:]]).split() == whole
    ]
    return sorted({0, *inside, len(ids)})


def spans(ids: Sequence[int], decode: Decode) -> list[tuple[str, int, int]]:
    """Return the words of a text, each with its first token and the one after its last.

    Where a token holds the end of a word and the beginning of the next, the two are one.
    """
    found = []
    for first, last in itertools.pairwise(edges(ids, decode)):
        word = " ".join(decode([*ids[first:last]]).split())
        if word:
            found.append((word, first, last))
    return found


def times(
    durations: Int[np.ndarray, "U"], *, upsample: int, frame_rate: float
) -> Float[np.ndarray, "T"]:
    """Return when each frame of the model begins, and when the last one ends, in seconds.

    Args:
        durations: of the units, in frames of the encoder.
        upsample: frames of the model that a unit has; they share its time.
        frame_rate: of the encoder, Hz.
    """
    ends = np.concatenate(([0], np.cumsum(durations))) / frame_rate
    frames = np.arange(upsample * len(durations) + 1) / upsample
    return np.interp(frames, np.arange(len(ends)), ends)


def timed(
    classes: Int[np.ndarray, "T"],
    confidence: Float[np.ndarray, "T"],
    decode: Decode,
    begins: Float[np.ndarray, "_"],
) -> tuple[Word, ...]:
    """Return the words that are read off frames.

    A token is as sure as its surest frame, a word as its least sure token.

    Args:
        classes: of each frame, 0 is the blank, k + 1 text id k.
        confidence: probability of each.
        decode: text ids to text.
        begins: of the frames, and the end of the last one, see `times`.
    """
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    stops = np.append(starts[1:], len(classes))
    kept = [
        (int(start), int(stop))
        for start, stop in zip(starts, stops, strict=True)
        if classes[start] > 0
    ]
    ids = [int(classes[start]) - 1 for start, _ in kept]
    return tuple(
        Word(
            word=word,
            start=float(begins[kept[first][0]]),
            end=float(begins[kept[last - 1][1]]),
            confidence=min(float(confidence[a:b].max()) for a, b in kept[first:last]),
        )
        for word, first, last in spans(ids, decode)
    )
