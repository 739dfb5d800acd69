"""Does the model hear in its units what they were to say? Where not, they are made again.

T2V2 recognizes what it has synthesized, before there is any sound. Where the text that it reads and
the text that was wanted differ, or a word lasts far longer or shorter than the length model says
(speech that stands still, a burst, a word that is swallowed), the words concerned are masked, given
the frames that the length model says, and filled in again with everything around them in view.

Axes: T frames, S tokens, U units, C classes of CTC.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitone.lm.losses import alignment
from unitone.lm.t2v2 import decoding
from unitone.lm.t2v2.decoding import Given, Synthesis
from unitone.lm.t2v2.editing import fitted
from unitone.lm.t2v2.model import T2V2, frames, log_p

LONG, SHORT = 2.0, 0.4
"""A word's frames beside those of the length model, at the most and at the least."""
SLACK = 8
"""Frames that a word may be longer or shorter whatever the length model says."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an utterance is to say."""

    text: Int[Tensor, "S"]
    durations: Int[Tensor, "S"]
    """Frames of each token, by the length model."""
    cuts: Sequence[int]
    """Places between tokens where no word is cut, both ends among them."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Tokens ``first`` to before ``last`` are not what frames ``start`` to before ``end`` say."""

    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Units, and what of them is still wrong."""

    units: list[int]
    wrong: tuple[Span, ...]
    repairs: int
    """Spans that were made again."""


@torch.inference_mode()
def posteriors(
    model: T2V2, units: Int[Tensor, "B U"], count: Int[Tensor, "B"]
) -> Float[Tensor, "B T C"]:
    """Return CTC's log-probabilities of rows of units."""
    up = model.config.upsample
    units = units.clamp(max=model.config.units - 1).repeat_interleave(up, dim=1)
    return log_p(model.ctc(model(frames(count * up, units.shape[1]), units=units)))


def disagreements(heard: Float[Tensor, "T C"], wanted: Wanted) -> tuple[Span, ...]:
    """Return where the frames say something else than is wanted, from left to right.

    Args:
        heard: log-probabilities of CTC, frames of this utterance only.
        wanted: the text, its words and its lengths.
    """
    classes = heard.argmax(dim=-1).cpu().numpy()
    text = wanted.text.cpu().numpy()
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    stops = np.append(starts[1:], len(classes))
    said = [n for n, start in enumerate(starts) if classes[start] > 0]
    read = classes[starts[said]] - 1
    begins, ends = starts[said], stops[said]
    if np.array_equal(read, text):
        return _merged(_misspent(heard, wanted), wanted, len(classes))
    matched = matches(text.tolist(), read.tolist())
    found = []
    edges = [(-1, -1), *matched, (len(text), len(read))]
    for (s0, r0), (s1, r1) in itertools.pairwise(edges):
        if s1 - s0 > 1 or r1 - r0 > 1:
            start = int(ends[r0]) if r0 >= 0 else 0
            end = int(begins[r1]) if r1 < len(read) else len(classes)
            span = Span(first=s0 + 1, last=s1, start=start, end=end)
            found.append(_whole(span, wanted, matched, begins, ends, len(classes)))
    return _merged(found, wanted, len(classes))


def _whole(
    span: Span,
    wanted: Wanted,
    matched: Sequence[tuple[int, int]],
    begins: np.ndarray,
    ends: np.ndarray,
    length: int,
) -> Span:
    """Return the span with the whole words that it cuts, and one of them at least."""
    first = max(cut for cut in wanted.cuts if cut <= span.first)
    last = min(cut for cut in wanted.cuts if cut >= span.last)
    if first == last:  # something is between two words: the shorter one is made again with it
        around = [(a, b) for a, b in itertools.pairwise(wanted.cuts) if first in (a, b)]
        first, last = min(around, key=lambda pair: pair[1] - pair[0])
    before = [r for s, r in matched if s < first]
    after = [r for s, r in matched if s >= last]
    start = int(ends[before[-1]]) if before else 0
    end = int(begins[after[0]]) if after else length
    return Span(first=first, last=last, start=min(start, span.start), end=max(end, span.end))


def _misspent(heard: Float[Tensor, "T C"], wanted: Wanted) -> list[Span]:
    """Return the words whose frames are far from what the length model says."""
    size = torch.tensor([len(wanted.text)], device=heard.device)
    length = torch.tensor([len(heard)], device=heard.device)
    scores = heard[:, wanted.text + 1].T[None]
    found = alignment.monotonic(scores, size, length)[0].cpu().numpy()
    at = np.concatenate(([0], found.cumsum()))
    said = np.concatenate(([0], wanted.durations.cpu().numpy().cumsum()))
    pace = min(max(at[-1] / max(said[-1], 1), 1 / LONG), LONG)
    wrong = []
    for first, last in itertools.pairwise(wanted.cuts):
        spent, expected = at[last] - at[first], (said[last] - said[first]) * min(pace, 1.0)
        if spent > LONG * expected + SLACK or spent < SHORT * expected - SLACK:
            span = Span(first=first, last=last, start=int(at[first]), end=int(at[last]))
            wrong.append(span)
    return wrong


def _merged(found: Sequence[Span], wanted: Wanted, length: int) -> tuple[Span, ...]:
    """Return spans that touch as one; those at an end reach it."""
    merged: list[Span] = []
    for one in sorted(found, key=lambda one: (one.first, one.start)):
        if merged and (one.first <= merged[-1].last or one.start <= merged[-1].end):
            before = merged.pop()
            one = Span(
                first=before.first,
                last=max(before.last, one.last),
                start=min(before.start, one.start),
                end=max(before.end, one.end),
            )
        merged.append(one)
    if merged and merged[0].first == 0:
        merged[0] = replace(merged[0], start=0)
    if merged and merged[-1].last == len(wanted.text):
        merged[-1] = replace(merged[-1], end=length)
    return tuple(merged)


def matches(wanted: Sequence[int], read: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of places that an alignment with the fewest edits leaves as they are."""
    rows, columns = len(wanted) + 1, len(read) + 1
    cost = np.zeros((rows, columns), np.int64)
    cost[:, 0], cost[0] = np.arange(rows), np.arange(columns)
    other = np.asarray(wanted)[:, None] != np.asarray(read)[None]
    steps = np.arange(columns)
    for row in range(1, rows):
        best = np.minimum(cost[row - 1, 1:] + 1, cost[row - 1, :-1] + other[row - 1])
        line = np.concatenate(([row], best)) - steps  # insertions: a running minimum
        cost[row] = np.minimum.accumulate(line) + steps
    found, row, column = [], rows - 1, columns - 1
    while row and column:
        same = not other[row - 1, column - 1]
        if cost[row, column] == cost[row - 1, column - 1] + (not same):
            row, column = row - 1, column - 1
            if same:
                found.append((row, column))
        elif cost[row, column] == cost[row - 1, column] + 1:
            row -= 1
        else:
            column -= 1
    return found[::-1]


@torch.inference_mode()
def repaired(
    model: T2V2,
    units: Int[Tensor, "U"],
    heard: Float[Tensor, "T C"],
    wanted: Wanted,
    wrong: Sequence[Span],
    voice: Given,
    *,
    how: Synthesis,
    generator: np.random.Generator,
) -> Int[Tensor, "V"]:
    """Return units in which the ``wrong`` spans were filled in again; the others stay.

    Args:
        model: T2V2.
        units: of the utterance.
        heard: log-probabilities of CTC for them.
        wanted: the text, its words and its lengths.
        wrong: what `disagreements` has found.
        voice: language and speaker, (1,) each.
        how: passes and guidance.
        generator: of what is drawn.
    """
    up = model.config.upsample
    parts: list[Tensor] = []
    texts: list[Tensor] = []
    edges = [Span(first=0, last=0, start=0, end=0), *wrong]
    edges.append(Span(first=len(wanted.text), last=0, start=len(heard), end=0))
    for before, span in itertools.pairwise(edges):
        kept = units[-(-before.end // up) : span.start // up]
        if len(kept):
            parts.append(kept)
            stretch, tokens = heard[before.end : span.start], wanted.text[before.last : span.first]
            near = wanted.text[max(span.first - 1, 0)][None]
            texts.append(fitted(_spread(stretch, tokens, near), up * len(kept)))
        if span.last > span.first:
            lengths = wanted.durations[span.first : span.last]
            count = max(-(-int(lengths.sum()) // up), 1)
            parts.append(units.new_full((count,), model.mask_unit))
            new = wanted.text[span.first : span.last].repeat_interleave(lengths)
            texts.append(fitted(new, up * count))
    masked, text = torch.cat(parts), torch.cat(texts)
    total = torch.tensor([len(masked)], device=units.device)
    return decoding.fill(
        model, masked[None], text[None], total, voice, how=how, generators=[generator]
    )[0]


def _spread(heard: Float[Tensor, "T C"], tokens: Tensor, other: Tensor) -> Tensor:
    """Return the token of each frame of a stretch that stays; ``other`` where it has none."""
    if not len(tokens):
        return other.expand(len(heard))
    if len(tokens) >= len(heard):
        return tokens[: len(heard)]
    size, length = (torch.tensor([len(one)], device=heard.device) for one in (tokens, heard))
    durations = alignment.monotonic(heard[:, tokens + 1].T[None], size, length)[0]
    return tokens.repeat_interleave(durations)


def verified(
    model: T2V2,
    units: Int[Tensor, "U"],
    wanted: Wanted,
    voice: Given,
    *,
    how: Synthesis,
    generator: np.random.Generator,
    rounds: int,
) -> Verified:
    """Repair an utterance's units until they say what is wanted, in so many ``rounds`` at most.

    Of all rounds' units, those are returned in which the fewest tokens are wrong, the earliest of
    them; arguments as of `repaired`.
    """
    best: tuple[int, Tensor, tuple[Span, ...]] | None = None
    repairs = 0
    for turn in range(rounds + 1):
        heard = posteriors(model, units[None], torch.tensor([len(units)], device=units.device))[0]
        wrong = disagreements(heard, wanted)
        amount = sum(one.last - one.first + 1 for one in wrong)
        if best is None or amount < best[0]:
            best = amount, units, wrong
        if not wrong or turn == rounds:
            break
        repairs += len(wrong)
        units = repaired(model, units, heard, wanted, wrong, voice, how=how, generator=generator)
    assert best is not None
    return Verified(units=best[1].tolist(), wrong=best[2], repairs=repairs)
