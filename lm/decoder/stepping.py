"""Rows of a batch behind one cache: tokens go in, logits of the tokens that may follow come out.

Prompts of different lengths end at the same slot: shorter ones are padded on the left and a mask
hides the padding; with equal lengths there is no mask, which is faster. With guidance every row has
a twin without its condition (classifier-free guidance, Ho & Salimans 2022, arXiv 2207.12598).

Axes: R rows, L positions, A columns (the tokens that may be generated), V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import NONE, Vectors
from unitone.lm.decoder.packed import Model, PackedLinear

ROOM = 64
"""Slots reserved at first behind the prompts."""


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
        weight = model.embedding.weight if model.output is None else model.output.weight
        device = weight.device
        self.tokens = allowed.nonzero()[:, 0].to(device)
        """The token of each column, (A,)."""
        self._model, self._guidance = model, guidance
        self._head = PackedLinear(weight.detach()[self.tokens], None)
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
        """Put a token behind every row; return the logits of what follows it."""
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
