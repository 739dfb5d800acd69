"""From states to text and units: correction of a CTC draft, masked synthesis with guidance.

Both fill masked places in a few passes over all frames at once. Axes: B rows, T frames, S tokens,
U units, K unit ids, C classes of CTC.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unitone.lm.losses import alignment
from unitone.lm.t2v2.model import T2V2, frames, log_p
from unitone.lm.t2v2.objective import feasible, to_input

COLDEST = 0.1
"""Temperature of the confidences in correction's last round."""

Given = dict[str, Tensor]
"""What of `T2V2.forward`'s inputs is there."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Text that was read off frames."""

    classes: Int[Tensor, "B T"]
    """Class of each frame, 0 is the blank."""
    confidence: Float[Tensor, "B T"]
    """Its probability."""


def recognize(
    model: T2V2,
    valid: Bool[Tensor, "B T"],
    given: Given,
    *,
    threshold: float,
    rounds: int,
) -> Draft:
    """Return CTC's likeliest classes, those below ``threshold`` corrected in ``rounds``.

    0 rounds is CTC alone. T2V2's confidence-masked correction: unsure frames are masked and
    predicted from what is left, the surest of them kept, the others masked again.
    """
    logits = model.ctc(model(valid, **given))
    confidence, classes = log_p(logits).exp().max(dim=-1)
    draft = Draft(classes=classes, confidence=confidence)
    return refined(model, valid, given, draft, threshold=threshold, rounds=rounds)


def refined(
    model: T2V2,
    valid: Bool[Tensor, "B T"],
    given: Given,
    draft: Draft,
    *,
    threshold: float,
    rounds: int,
) -> Draft:
    """Return a draft, wherever it is from, with its unsure frames corrected; see `recognize`."""
    classes, confidence = draft.classes, draft.confidence
    hidden = (confidence < threshold) & valid
    for turn in range(rounds):
        if not hidden.any():
            break
        text = to_input(classes, model).masked_fill(hidden, model.mask_text)
        logits = model.correction(model(valid, text=text, **given))
        cold = COLDEST if rounds == 1 else 1 + (COLDEST - 1) * turn / (rounds - 1)
        found, guessed = log_p(logits.float() / cold).exp().max(dim=-1)
        classes = torch.where(hidden, guessed, classes)
        confidence = torch.where(hidden, found, confidence)
        hidden = hidden & (confidence < threshold)
    return Draft(classes=classes, confidence=confidence)


def collapsed(classes: Int[np.ndarray, "T"]) -> list[int]:
    """Return the text ids of a row's frames: repeats once, blanks gone."""
    changes = np.flatnonzero(np.diff(classes, prepend=-1))
    kept = classes[changes]
    return [int(one) - 1 for one in kept if one > 0]


def lengths(
    model: T2V2, text: Int[Tensor, "B S"], tokens: Int[Tensor, "B"], voice: Given, *, scale: float
) -> Int[Tensor, "B S"]:
    """Return the frames of each token, 1 or more; a row's are a multiple of the frames of a unit.

    Where the predicted lengths add up to fractions, the sum is rounded, not each of them; to whole
    units, in the longest token.
    """
    valid = frames(tokens)
    longest = math.log(model.config.context)
    log_lengths: Tensor = model.length(model(valid, text=text, **voice))[..., 0].float()
    guessed = log_lengths.clamp(max=longest).exp() * scale
    exact, up = (guessed * valid).cumsum(dim=1), model.config.upsample
    ends = exact.round().long()
    durations: Tensor = ends.diff(dim=1, prepend=ends.new_zeros(len(ends), 1)).clamp(min=1) * valid
    total = durations.sum(dim=1)
    wanted = exact[:, -1] + (total - ends[:, -1])  # what has less than a frame gets one
    more = ((wanted / up).round() * up).long() - total
    most = durations.max(dim=1)
    more = torch.where(most.values + more < 1, -total % up, more)
    return durations.scatter_add(1, most.indices[:, None], more[:, None])


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """How units are filled in."""

    passes: int
    """Passes over the utterance; 1 takes the likeliest of all at once."""
    guidance: float
    """Weight of what the text adds to the model of speech alone; 0 is without."""
    twin: Literal["current", "masked"]
    """What speech alone sees: the units so far, or none, computed once."""
    temperature: float
    """Of sampling and of the noise on confidences, before the last pass."""


def fill(
    model: T2V2,
    units: Int[Tensor, "B U"],
    text: Int[Tensor, "B T"],
    count: Int[Tensor, "B"],
    voice: Given,
    *,
    how: Synthesis,
    generators: Sequence[np.random.Generator],
    seen: list[Bool[Tensor, "B U"]] | None = None,
) -> Int[Tensor, "B U"]:
    """Fill the masked units in; what is beyond a row's means nothing, the others stay.

    MaskGIT's decoding (Chang et al. 2022, arXiv 2202.04200) with T2V2's guidance,
    (1 + w) conditional - w unconditional.

    Args:
        model: T2V2.
        units: `T2V2.mask_unit` where one is to be found.
        text: token of each frame.
        count: units of each row.
        voice: language and speaker.
        how: passes and guidance.
        generators: one a row, which no other row uses.
        seen: if given, what is still masked after each pass but the last is added to it.
    """
    up = model.config.upsample
    valid = frames(count * up, text.shape[1])
    hidden = (units == model.mask_unit) & frames(count, units.shape[1])
    asked = hidden.sum(dim=1)
    fixed_twin = None
    if how.guidance and how.twin == "masked":
        fixed_twin = _unit_logits(model, valid, units, None, voice)
    for turn in range(how.passes):
        ratio = math.cos(math.pi / 2 * (turn + 1) / how.passes)
        logits = _guided(model, valid, units, text, voice, how, fixed_twin)
        if turn == how.passes - 1:
            units = torch.where(hidden, logits.argmax(dim=-1), units)
            break
        noise = _gumbel(generators, count, (logits.shape[1], logits.shape[2] + 1))
        drawn = logits.argmax(dim=-1)
        if how.temperature:
            drawn = (logits / (how.temperature * ratio) + noise[..., 1:]).argmax(dim=-1)
        confidence = log_p(logits).gather(2, drawn[..., None])[..., 0]
        confidence = confidence + how.temperature * ratio * noise[..., 0]
        confidence = confidence.masked_fill(~hidden, torch.inf)
        units = torch.where(hidden, drawn, units)
        keep = (asked * ratio).long().clamp(min=1)
        rank = confidence.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        hidden = (rank < keep[:, None]) & hidden
        if seen is not None:
            seen.append(hidden)
        units = units.masked_fill(hidden, model.mask_unit)
    return units


def _guided(
    model: T2V2,
    valid: Bool[Tensor, "B T"],
    units: Int[Tensor, "B U"],
    text: Int[Tensor, "B T"],
    voice: Given,
    how: Synthesis,
    fixed_twin: Float[Tensor, "B U K"] | None,
) -> Float[Tensor, "B U K"]:
    given = _unit_logits(model, valid, units, text, voice)
    if not how.guidance:
        return given
    twin = fixed_twin
    if twin is None:
        twin = _unit_logits(model, valid, units, None, voice)
    return (1 + how.guidance) * given - how.guidance * twin


def _unit_logits(
    model: T2V2,
    valid: Bool[Tensor, "B T"],
    units: Int[Tensor, "B U"],
    text: Int[Tensor, "B T"] | None,
    voice: Given,
) -> Float[Tensor, "B U K"]:
    """Return the logits of each unit, the mean over its frames."""
    up = model.config.upsample
    states = model(valid, units=units.repeat_interleave(up, dim=1), text=text, **voice)
    logits: Tensor = model.speech(states).float()
    return logits if up == 1 else logits.unflatten(1, (-1, up)).mean(dim=2)


def _gumbel(
    generators: Sequence[np.random.Generator], count: Int[Tensor, "B"], shape: tuple[int, int]
) -> Float[Tensor, "B U N"]:
    """Return noise for each row's units; what a row draws depends on its own length alone."""
    noise = torch.zeros(len(generators), *shape)
    for row, (generator, length) in enumerate(zip(generators, count.tolist(), strict=True)):
        drawn = generator.gumbel(size=(length, shape[1]))
        noise[row, :length] = torch.from_numpy(drawn)
    return noise.to(count.device)


def read_back(
    model: T2V2,
    units: Int[Tensor, "B U"],
    count: Int[Tensor, "B"],
    text: Int[Tensor, "B S"],
    tokens: Int[Tensor, "B"],
) -> Float[Tensor, "B"]:
    """Return the log-likelihood of texts a token, as the model itself recognizes their units."""
    up = model.config.upsample
    valid = frames(count * up, units.shape[1] * up)
    units = units.clamp(max=model.config.units - 1)
    logits = model.ctc(model(valid, units=units.repeat_interleave(up, dim=1)))
    losses = F.ctc_loss(
        log_p(logits).transpose(0, 1), text + 1, count * up, tokens, reduction="none"
    )
    possible = feasible(text, tokens, count * up)
    return torch.where(possible, -losses / tokens, -torch.inf)


def spread(
    text: Int[Tensor, "B S"], durations: Int[Tensor, "B S"]
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]:
    """Return the token of each frame, and the frames of each row."""
    total = durations.sum(dim=1)
    place = alignment.token_of_frame(durations, int(total.max()))
    return text.gather(1, place), total
