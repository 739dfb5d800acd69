"""Another text in a recording's units: the changed words are generated again, the rest stays.

The recording's text is aligned with its units by the model's own posteriors; the words that change
become masked units, as many as the length model says at the recording's own pace, and are filled in
with everything around them in view (infilling, as in T2V2's synthesis). Inserting, replacing and
deleting are one operation. Axes: T frames, S tokens, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from unitone.lm.losses import alignment
from unitone.lm.t2v2 import decoding
from unitone.lm.t2v2.decoding import Given, Synthesis
from unitone.lm.t2v2.model import T2V2, log_p
from unitone.lm.t2v2.words import Decode, edges

PACE = (0.5, 2.0)
"""The recording's pace beside the length model's, at the least and at the most."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What became of the units."""

    units: np.ndarray
    """(U,)"""
    start: int
    """First unit that is new."""
    end: int
    """First one after the new ones."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Tokens ``first`` to ``last_old`` of the old text become ``first`` to ``last_new``."""

    first: int
    last_old: int
    last_new: int


def change(old: Sequence[int], new: Sequence[int], decode: Decode) -> Change:
    """Return the smallest change that begins and ends between words."""
    edges_old, edges_new = {*edges(old, decode)}, {*edges(new, decode)}
    same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False))])
    first = max(edge for edge in edges_old & edges_new if edge <= same)
    most = min(len(old), len(new)) - first
    backwards = zip(reversed(old), reversed(new), strict=False)
    same = min(most, len([*takewhile(lambda pair: pair[0] == pair[1], backwards)]))
    tails = {len(old) - edge for edge in edges_old} & {len(new) - edge for edge in edges_new}
    tail = max(one for one in tails if one <= same)
    return Change(first=first, last_old=len(old) - tail, last_new=len(new) - tail)


@torch.inference_mode()
def edit(
    model: T2V2,
    units: Tensor,
    old: Tensor,
    new: Tensor,
    changed: Change,
    spaces: Sequence[bool],
    voice: Given,
    *,
    how: Synthesis,
    generator: np.random.Generator,
) -> Edit:
    """Return the units of a recording with another text.

    Args:
        model: T2V2.
        units: of the recording (U,).
        old: its text (S,).
        new: the text that it shall have.
        changed: where they differ, see `change`.
        spaces: which tokens of the old text are nothing but space.
        voice: language and speaker, (1,) each.
        how: passes and guidance.
        generator: of what is drawn.

    Raises:
        ValueError: the recording is shorter than its text.
    """
    up = model.config.upsample
    durations = _aligned(model, units.repeat_interleave(up), old)
    ends = torch.cat((durations.new_zeros(1), durations.cumsum(0))).tolist()
    cuts = [_cut(ends, spaces, place) for place in (changed.first, changed.last_old)]
    start = round(cuts[0] / up)
    stop = max(round(cuts[1] / up), start)
    lengths = _paced(model, durations, old, new, voice)[changed.first : changed.last_new]
    count = 0
    if len(lengths):  # what is left of the pauses beside it is the new words'
        beside = max(ends[changed.first] - cuts[0], 0) + max(cuts[1] - ends[changed.last_old], 0)
        count = max(round((int(lengths.sum()) + beside) / up), 1)
    mask = units.new_full((count,), model.mask_unit)
    masked = torch.cat((units[:start], mask, units[stop:]))
    if count:
        frames_before = old[: changed.first].repeat_interleave(durations[: changed.first])
        frames_new = torch.cat(
            (
                frames_before[start * up :],
                new[changed.first : changed.last_new].repeat_interleave(lengths),
            )
        )
        frames_after = old[changed.last_old :].repeat_interleave(durations[changed.last_old :])
        before, made = fitted(frames_before, start * up), fitted(frames_new, count * up)
        after = fitted(frames_after.flip(0), (len(units) - stop) * up).flip(0)
        text = torch.cat((before, made, after))
        total = torch.tensor([len(masked)], device=units.device)
        masked = decoding.fill(
            model, masked[None], text[None], total, voice, how=how, generators=[generator]
        )[0]
    return Edit(units=masked.cpu().numpy(), start=start, end=start + count)


def _cut(ends: Sequence[int], spaces: Sequence[bool], place: int) -> float:
    """Return the frame to cut at between two tokens: the middle of a pause, where there is one."""
    if place in (0, len(spaces)):
        return float(ends[place])
    for token in (place - 1, place):
        if spaces[token]:
            return (ends[token] + ends[token + 1]) / 2
    return float(ends[place])


def _aligned(model: T2V2, units: Tensor, text: Tensor) -> Tensor:
    """Return the frames of each token, by the model's posteriors."""
    valid = torch.ones(1, len(units), dtype=torch.bool, device=units.device)
    posteriors = log_p(model.ctc(model(valid, units=units[None])))[0]
    scores = posteriors[:, text + 1].T[None]
    sizes = (torch.tensor([len(one)], device=units.device) for one in (text, units))
    return alignment.monotonic(scores, *sizes)[0]


def _paced(model: T2V2, durations: Tensor, old: Tensor, new: Tensor, voice: Given) -> Tensor:
    """Return the frames of the new text's tokens, at the recording's pace."""

    def guessed(text: Tensor, scale: float) -> Tensor:
        size = torch.tensor([len(text)], device=text.device)
        return decoding.lengths(model, text[None], size, voice, scale=scale)[0]

    pace = float(durations.sum()) / max(float(guessed(old, 1.0).sum()), 1.0)
    return guessed(new, min(max(pace, PACE[0]), PACE[1]))


def fitted(text: Tensor, count: int) -> Tensor:
    """Return ``count`` frames of a text that has a few more or less: units are whole."""
    if len(text) >= count:
        return text[:count]
    return torch.cat((text, text[-1:].expand(count - len(text))))
