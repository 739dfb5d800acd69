"""Where a model looks: the attention of every head on one example, and which heads read in order.

Axes: L positions of the example, N of them looking, M looked at.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from unitone.errors import ConfigError
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import LanguageModel
from unitone.nn.rotary import rotate
from unitone.nn.transformer import Attention, AttentionContext


@torch.no_grad()
def weights(
    model: LanguageModel, example: Example, *, of: Bool[np.ndarray, "L"]
) -> Float32[np.ndarray, "layers heads N M"]:
    """Return how much each head looks at the positions ``of`` while it predicts each target.

    Row n is of the position before the n-th target: the one whose state predicts it. The weights
    of a row over all positions, not over ``of`` alone, add up to 1. The whole example goes through
    at once, with the true targets after the prompt (teacher forcing).

    Args:
        model: in evaluation mode; its precision is that of its weights.
        example: with a target; tokens only.
        of: the positions looked at, such as those of the units.

    Raises:
        ConfigError: the example has no target, one at its first position, or vectors.
    """
    queries = np.flatnonzero(example.target) - 1
    if not len(queries) or queries[0] < 0:
        raise ConfigError("attention is drawn of the targets after a prompt; there is none")
    if example.vectors:
        raise ConfigError("attention is drawn of tokens; this example has vectors")
    found: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Any, ...], _: Any) -> None:
        assert isinstance(module, Attention)
        found.append(_weights(module, given[0], given[1])[0])

    blocks = model.transformer.blocks
    handles = [block.get_submodule("attention").register_forward_hook(keep) for block in blocks]
    try:
        model(torch.from_numpy(example.tokens).long()[None].to(model.embedding.weight.device))
    finally:
        for handle in handles:
            handle.remove()
    every = torch.stack(found).cpu().numpy()
    return np.ascontiguousarray(every[:, :, queries][..., np.flatnonzero(of)])


def _weights(
    module: Attention, x: Float[Tensor, "B L D"], context: AttentionContext
) -> Float32[Tensor, "B H L L"]:
    """Return the causal softmax that `Attention` mixes with, in fp32."""
    heads, groups = module.heads, module.kv_heads
    qkv = module.qkv(x).unflatten(-1, (-1, module.head_dim))
    turned = rotate(qkv[:, :, : heads + groups], context.cos, context.sin).transpose(1, 2).float()
    query, key = turned.split([heads, groups], dim=1)
    key = key.repeat_interleave(heads // groups, dim=1)
    scores = query @ key.transpose(-1, -2) * module.head_dim**-0.5
    length = x.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    softmax: Tensor = scores.masked_fill(later, -torch.inf).softmax(-1)
    return softmax


def monotone_share(weights: Float[np.ndarray, "N M"]) -> float:
    """Return how much of N rows' attention lies along the best reading of the M columns in order.

    Such a reading cuts the columns into N stretches, empty ones allowed, and row n reads the n-th.
    1: every row looks at its stretch and at nothing else. 1/N: what looking everywhere alike, or
    always at the same place, comes to. What a row spends outside of the columns counts as lost.

    >>> monotone_share(np.eye(3)), monotone_share(np.full((4, 8), 1 / 8))
    (1.0, 0.25)
    """
    best = np.zeros(len(weights))  # of readings up to a column that give it to row n
    for column in weights.T:
        best = np.maximum.accumulate(best) + column
    return float(best.max() / len(weights))


def monotone_shares(
    maps: Sequence[Float[np.ndarray, "layers heads _ _"]],
) -> Float[np.ndarray, "layers heads"]:
    """Return the `monotone_share` of each head, the mean over ``maps``.

    Args:
        maps: what `weights` returned, one of each example.

    Raises:
        ConfigError: there are none.
    """
    if not maps:
        raise ConfigError("no example to measure the heads on")
    every = [[[monotone_share(one) for one in layer] for layer in each] for each in maps]
    shares: np.ndarray = np.mean(every, axis=0)
    return shares
