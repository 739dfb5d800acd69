"""Rows of a batch over one cache: tokens go in, logits of the tokens that may follow come out.

Prompts of different lengths end at the same slot: shorter ones are padded on the left and a mask
hides the padding; with equal lengths there is no mask, which is faster. With guidance every row has
a twin without its condition (classifier-free guidance, Ho & Salimans 2022, arXiv 2207.12598).

Codes of a codec have steppers of their own: one knows which level may come next, the other takes
several tokens a step.

Axes: R rows, L positions, Q levels, A columns (the tokens that may be generated), V vocabulary.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unitone.lm.decoder.codes import Levels, widen
from unitone.lm.decoder.kernels import Model, head
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import NONE, Vectors

ROOM = 64
"""Slots reserved at first after the prompts."""


class Stepper:
    """Greedy, sampled and beam search alike drive this: `start`, then `step` and `select`."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Example],
        *,
        allowed: Bool[Tensor, "V"],
        nulls: Sequence[Example] | None,
        guidance: float,
    ) -> None:
        """Lay the prompts out; ``nulls`` are their twins, needed where ``guidance`` isn't 1."""
        device = model.embedding.weight.device
        self.tokens = allowed.nonzero()[:, 0].to(device)
        """The token of each column, (A,)."""
        self._model, self._guidance = model, guidance
        self._head = head(model, self.tokens)
        self._guided = guidance != 1.0
        if self._guided and nulls is None:
            raise ValueError("guidance needs the prompts without their conditions, nulls")
        examples = [*prompts, *(nulls or ())] if self._guided else list(prompts)
        self._tokens, pads = _pad_left([example.tokens for example in examples])
        self._tokens, self._pads = self._tokens.to(device), pads.to(device)
        self._padded = bool(pads.any())
        self._vectors = _vectors(examples, self._tokens.shape[1], device)
        self._prompt = self._tokens.shape[1]
        self._cache = model.cache(rows=len(examples), slots=self._prompt + ROOM)

    def start(self) -> Float[Tensor, "R A"]:
        """Read the prompts; return the logits of what follows each."""
        positions, mask = None, None
        if self._padded:
            slots = torch.arange(self._prompt, device=self._pads.device)
            positions = (slots - self._pads[:, None]).clamp(min=0)
            real = slots >= self._pads[:, None]
            causal = slots[:, None] >= slots
            itself = slots[:, None] == slots  # padding must see something: 0 / 0 would spread
            mask = (causal & (real[:, None, None] | itself)).contiguous()
        return self._run(self._tokens, positions, mask, self._vectors)

    def step(self, columns: Int[Tensor, "R *Q"]) -> Float[Tensor, "R A"]:
        """Put a token after every row; return the logits of what follows it."""
        tokens = self._laid(columns)
        if self._guided:
            tokens = torch.cat((tokens, tokens))
        positions, mask = None, None
        if self._padded:
            slot = self._cache.filled
            positions = (slot - self._pads)[:, None]
            slots = torch.arange(slot + 1, device=self._pads.device)
            mask = (slots >= self._pads[:, None])[:, None, None]
        return self._run(tokens, positions, mask, {})

    def _laid(self, columns: Tensor) -> Int[Tensor, "R 1 *Q"]:
        """Return the tokens of the next position."""
        tokens = self.tokens[columns][:, None]
        if self._tokens.ndim == 3:  # the prompt had several streams; the others are silent
            silent = tokens.new_full((*tokens.shape, self._tokens.shape[2] - 1), NONE)
            tokens = torch.cat((tokens[..., None], silent), dim=-1)
        return tokens

    def select(self, rows: Int[Tensor, "S"], *, same_prompts: bool = False) -> None:
        """Make row ``rows[r]`` the new row r; ``same_prompts``: each has the prompt of row r."""
        if self._guided:
            rows = torch.cat((rows, rows + len(self._pads) // 2))
        self._cache.select(rows, start=self._prompt if same_prompts else 0)
        self._pads = self._pads[rows]

    def _run(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        mask: Tensor | None,
        vectors: dict[str, Vectors],
    ) -> Tensor:
        states = self._model(
            tokens, positions=positions, mask=mask, vectors=vectors, cache=self._cache
        )
        logits: Tensor = self._head(states[:, -1]).float()
        if self._guided:
            conditioned, null = logits.chunk(2)
            logits = null + self._guidance * (conditioned - null)
        return logits


class FlatStepper(Stepper):
    """After a code of level q comes one of level q + 1; the rest only after whole frames."""

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
        """First column of each level, and the one after its last."""
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


def _pad_left(rows: Sequence[np.ndarray]) -> tuple[Tensor, Int[Tensor, "R"]]:
    """Return the tokens with padding on the left, and how much of it each row has."""
    length = max(map(len, rows))
    streams = max(row.shape[1] if row.ndim == 2 else 1 for row in rows)
    tokens = np.full((len(rows), length, streams), NONE, np.int64)
    for number, row in enumerate(rows):
        wide = row.reshape(len(row), -1)
        tokens[number, length - len(row) :, : wide.shape[1]] = wide
    pads = torch.tensor([length - len(row) for row in rows])
    if streams == 1:
        return torch.from_numpy(tokens[..., 0].clip(min=0)), pads
    return torch.from_numpy(tokens), pads


def _vectors(examples: Sequence[Example], length: int, device: torch.device) -> dict[str, Vectors]:
    found: dict[str, Vectors] = {}
    for kind in sorted({kind for example in examples for kind in example.vectors}):
        where = np.zeros((len(examples), length), bool)
        values: list[np.ndarray] = []
        for number, example in enumerate(examples):
            if kind in example.vectors:
                given, places = example.vectors[kind]
                where[number, length - len(example) :] = places
                values.append(given)
        found[kind] = Vectors(
            values=torch.from_numpy(np.concatenate(values)).to(device),
            where=torch.from_numpy(where).to(device),
        )
    return found
