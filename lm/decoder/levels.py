"""Steppers that generate codes of a codec: which level may come next, and several tokens a step.

Axes: R rows, Q levels, A columns (the tokens that may be generated), V vocabulary.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unitone.lm.decoder.codes import Levels, widen
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import NONE
from unitone.lm.decoder.packed import Model
from unitone.lm.decoder.stepping import Stepper


class FlatStepper(Stepper):
    """Behind a code of level q comes one of level q + 1; the rest only behind whole frames."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Example],
        *,
        allowed: Bool[Tensor, "V"],
        nulls: Sequence[Example] | None,
        guidance: float,
        levels: Levels,
    ) -> None:
        """Lay the prompts out, which end in whole frames if in codes."""
        super().__init__(model, prompts, allowed=allowed, nulls=nulls, guidance=guidance)
        level = _level_of(self.tokens, levels)
        count = len(levels.blocks)
        self._next = (level + 1) % count
        """What may follow each column: codes of this level and, at 0, what is no code."""
        numbers = torch.arange(count, device=level.device)[:, None]
        self._forbidden = (level != numbers) & ((numbers > 0) | (level != NONE))

    def start(self) -> Float[Tensor, "R A"]:
        """As of `Stepper`."""
        return super().start().masked_fill(self._forbidden[0], -torch.inf)

    def step(self, columns: Int[Tensor, "R"]) -> Float[Tensor, "R A"]:
        """As of `Stepper`."""
        return super().step(columns).masked_fill(self._forbidden[self._next[columns]], -torch.inf)


class DelayedStepper(Stepper):
    """Takes a token for every stream of a row; its logits are those of all streams."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Example],
        *,
        allowed: Bool[Tensor, "V"],
        nulls: Sequence[Example] | None,
        guidance: float,
        levels: Levels,
    ) -> None:
        """Lay the prompts out in as many streams as there are levels."""
        self.streams = len(levels.blocks)
        prompts = [_widened(prompt, self.streams) for prompt in prompts]
        if nulls is not None:
            nulls = [_widened(null, self.streams) for null in nulls]
        super().__init__(model, prompts, allowed=allowed, nulls=nulls, guidance=guidance)
        self.level = _level_of(self.tokens, levels)
        """The level of each column, `NONE` of what is no code, (A,)."""
        ends = [int(allowed[: block.start].sum()) for block in levels.blocks]
        ends.append(ends[-1] + levels.blocks[-1].size)
        self.columns_of = list(itertools.pairwise(ends))
        """First column of each level, and the one behind its last."""
        column_of = torch.full((len(allowed),), NONE, device=self.tokens.device)
        column_of[self.tokens] = torch.arange(len(self.tokens), device=self.tokens.device)
        last = self._tokens[: len(prompts), max(self._prompt - self.streams + 1, 0) :]
        found = torch.where(last == NONE, NONE, column_of[last.clamp(min=0)])
        coded = torch.where(found == NONE, NONE, self.level[found.clamp(min=0)])
        streams = torch.arange(self.streams, device=found.device)
        found = torch.where(coded == streams, found, NONE)
        missing = self.streams - 1 - found.shape[1]
        self.given = torch.nn.functional.pad(found, (0, 0, missing, 0), value=NONE)
        """Columns of the codes in the last Q - 1 positions of the prompts, (R, Q - 1, Q)."""

    def _laid(self, columns: Tensor) -> Int[Tensor, "R 1 Q"]:
        tokens = torch.where(columns == NONE, NONE, self.tokens[columns.clamp(min=0)])
        return tokens[:, None]


def open_stepper(
    model: Model,
    prompts: Sequence[Example],
    *,
    allowed: Bool[Tensor, "V"],
    nulls: Sequence[Example] | None,
    guidance: float,
    levels: Levels | None,
) -> Stepper:
    """Return the stepper that can generate these codes; ``levels`` None: there are none."""
    if levels is None or len(levels.blocks) < 2:
        return Stepper(model, prompts, allowed=allowed, nulls=nulls, guidance=guidance)
    kind = DelayedStepper if levels.delayed else FlatStepper
    return kind(model, prompts, allowed=allowed, nulls=nulls, guidance=guidance, levels=levels)


def _level_of(tokens: Int[Tensor, "A"], levels: Levels) -> Int[Tensor, "A"]:
    """Return the level of each token, `NONE` of what is no code."""
    found = torch.full_like(tokens, NONE)
    for level, block in enumerate(levels.blocks):
        found[(tokens >= block.start) & (tokens < block.end)] = level
    return found


def _widened(example: Example, streams: int) -> Example:
    return replace(example, tokens=widen(example.tokens, streams))
