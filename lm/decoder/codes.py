"""Codes of a codec in a sequence: one level after the other, or side by side with a delay.

``flat``    frame by frame, the levels of a frame one after the other: T * Q positions
``delay``   Q streams, level q a step later than level q - 1 (MusicGen, arXiv 2306.05284):
            T + Q - 1 positions; what follows the codes begins beside their tail

Axes: Q levels, T frames, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32

from unitone.lm.data.vocabulary import Block
from unitone.lm.decoder.model import NONE
from unitone.lm.options import Pattern

Laid = Int32[np.ndarray, "L"] | Int32[np.ndarray, "L Q"]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How the levels of a vocabulary lie in a sequence."""

    blocks: tuple[Block, ...]
    """Coarsest first; none, where the vocabulary has no codes."""
    pattern: Pattern

    @property
    def delayed(self) -> bool:
        """Whether a position holds several tokens."""
        return self.pattern == "delay" and len(self.blocks) > 1

    @property
    def tail(self) -> int:
        """Positions in which level 0 is over and others are not."""
        return len(self.blocks) - 1 if self.delayed else 0

    def length(self, frames: Int[np.ndarray, "*N"]) -> Int[np.ndarray, "*N"]:
        """Return how many positions frames take, none where there is no frame."""
        if self.delayed:
            return np.where(frames > 0, frames + self.tail, 0)
        return frames * len(self.blocks)

    def begun(self, frames: int) -> int:
        """Return the positions after which the first ``frames`` have begun."""
        return frames if self.delayed else frames * len(self.blocks)

    def lay(self, tokens: Int[np.ndarray, "Q T"]) -> Laid:
        """Return the positions of tokens."""
        return delay(tokens) if self.delayed else tokens.T.reshape(-1).astype(np.int32)

    def gather(self, tokens: Sequence[int]) -> Int32[np.ndarray, "Q T"]:
        """Return the code tokens among ``tokens``, which come frame by frame; whole frames only."""
        first, last = self.blocks[0].start, self.blocks[-1].end
        found = np.array([token for token in tokens if first <= token < last], np.int32)
        levels = len(self.blocks)
        return found[: len(found) // levels * levels].reshape(-1, levels).T


def delay(codes: Int[np.ndarray, "Q T"]) -> Int32[np.ndarray, "L Q"]:
    """Shift level q by q steps: position l holds code l - q of level q."""
    levels, frames = codes.shape
    out = np.full((frames + levels - 1, levels), NONE, np.int32)
    for level in range(levels):
        out[level : level + frames, level] = codes[level]
    return out


def widen(tokens: Int[np.ndarray, "L *Q"], streams: int) -> Laid:
    """Return tokens in stream 0 of several; as they are, where they have streams already."""
    if streams == 1 or tokens.ndim == 2:
        return tokens
    wide = np.full((len(tokens), streams), NONE, tokens.dtype)
    wide[:, 0] = tokens
    return wide
