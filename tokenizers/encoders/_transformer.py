"""The transformer blocks of all families, on packed frames: no padding, no masks.

The valid frames of all utterances of a batch are the rows of one matrix, so that every linear map
is one product and no row knows another utterance; only the attention looks at rows together,
utterance by utterance (``spans`` are their lengths, in order).

Axes: M rows (frames of all utterances), T frames of one utterance, D width, H heads, E = 3 D.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unitone.nn.linear import LayerNorm, Linear, Precision, product
from unitone.tokenizers.encoders._architecture import Sizes, weights_of
from unitone.tokenizers.encoders._weights import Checkpoint

_LOGITS = 1 << 20  # logits computed at a time on a CPU: 4 MB of float32


@runtime_checkable
class Attention(Protocol):
    """Self-attention within each utterance; the families differ in their position bias."""

    def __call__(
        self, rows: Float[Tensor, "M D"], spans: Sequence[int]
    ) -> Float[Tensor, "M D"]: ...


@dataclass(frozen=True, kw_only=True)
class HeadBias:
    """A bias of the logits, gate[h, i] distances[h, i, j], float32."""

    gate: Float[Tensor, "H T 1"]
    distances: Float[Tensor, "H T T"]
    """For each query in order, and the keys in *reverse* order (see ``wavlm.RelativeBias``)."""


class SelfAttention:
    """Multi-head attention with q, k and v from one product."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        block: int,
        num_heads: int,
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        weights = weights_of(checkpoint, f"block.{block}")
        self.num_heads = num_heads
        self.qkv = projections(weights, num_heads, precision=precision, device=device)
        self.out = Linear(
            weights["out.weight"], weights["out.bias"], precision=precision, device=device
        )

    def __call__(self, rows: Float[Tensor, "M D"], spans: Sequence[int]) -> Float[Tensor, "M D"]:
        """Attend within each utterance."""
        parts = [attend(qkv, self.num_heads) for qkv in self.qkv(rows).split(list(spans))]
        return self.out(torch.cat(parts))


def self_attentions(
    checkpoint: Checkpoint,
    sizes: Sizes,
    num_blocks: int,
    *,
    precision: Precision,
    device: torch.device,
) -> list[Attention]:
    """Return plain self-attention for the first ``num_blocks`` blocks."""
    return [
        SelfAttention(checkpoint, block, sizes.num_heads, precision=precision, device=device)
        for block in range(num_blocks)
    ]


def projections(
    weights: Mapping[str, Tensor], num_heads: int, *, precision: Precision, device: torch.device
) -> Linear:
    """Return q, k and v of a block as one map, with the scale of the logits folded into q.

    A bias of k is optional: it adds the same to all logits of a query.
    """
    scale = (len(weights["q.bias"]) // num_heads) ** -0.5
    key_bias = weights.get("k.bias", torch.zeros_like(weights["v.bias"]))
    return Linear(
        torch.cat([weights["q.weight"] * scale, weights["k.weight"], weights["v.weight"]]),
        torch.cat([weights["q.bias"] * scale, key_bias, weights["v.bias"]]),
        precision=precision,
        device=device,
    )


def attend(
    qkv: Float[Tensor, "T E"], num_heads: int, bias: HeadBias | None = None
) -> Float[Tensor, "T D"]:
    """Return the attention of one utterance, whose queries are scaled; ``bias`` adds to logits."""
    heads = rearrange(qkv, "t (three h d) -> three h t d", three=3, h=num_heads)
    query, key, value = heads.contiguous() if qkv.device.type == "cpu" else heads  # (H, T, d)
    if bias is not None:
        key, value = key.flip(1), value.flip(1)  # attention does not depend on the order of keys
    if qkv.device.type == "cpu":
        return _attend_by_head(query, key, value, bias)
    mask = None if bias is None else (bias.gate * bias.distances).to(qkv.dtype)[None]
    attended = F.scaled_dot_product_attention(
        query[None], key[None], value[None], attn_mask=mask, scale=1.0
    )
    return rearrange(attended[0], "h t d -> t (h d)")


def _attend_by_head(
    queries: Float[Tensor, "H T d"],
    keys: Float[Tensor, "H T d"],
    values: Float[Tensor, "H T d"],
    bias: HeadBias | None,
) -> Float[Tensor, "T D"]:
    """Attend on a CPU, head by head and a slice of the queries at a time.

    The logits of a slice stay in the cache and are float32 in either precision: bfloat16 logits of
    trained models, tens in size, would be off by several percent in their exponential. This takes
    half the time of ``scaled_dot_product_attention``, whose products do not go through oneDNN.
    """
    num_frames = queries.shape[1]
    out = queries.new_empty(num_frames, len(queries), queries.shape[2])
    rows = max(16, _LOGITS // num_frames)
    for head, (query, key, value) in enumerate(
        zip(queries.float(), keys.float(), values.transpose(1, 2), strict=True)
    ):
        for start in range(0, num_frames, rows):
            part = slice(start, start + rows)
            logits = product(query[part], key)
            if bias is not None:
                logits.addcmul_(bias.gate[head, part], bias.distances[head, part])
            torch.softmax(logits, -1, out=logits)
            out[part, head] = product(logits.to(value.dtype), value)
    return out.flatten(1)


class Block:
    """Attention and feed-forward, each with its residual sum and layer norm."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        block: int,
        sizes: Sizes,
        attention: Attention,
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        weights = weights_of(checkpoint, f"block.{block}")
        epsilon = sizes.epsilon
        self.pre_norm = sizes.pre_norm
        self.attention = attention
        self.norm1 = LayerNorm(weights, "norm1", epsilon=epsilon, device=device)
        self.norm2 = LayerNorm(weights, "norm2", epsilon=epsilon, device=device)
        self.up, self.down = (
            Linear(
                weights[f"{name}.weight"], weights[f"{name}.bias"],
                precision=precision, device=device,
            )
            for name in ("up", "down")
        )  # fmt: skip

    def __call__(self, rows: Float[Tensor, "M D"], spans: Sequence[int]) -> Float[Tensor, "M D"]:
        """Return the block's output; the residual stream stays float32."""
        if self.pre_norm:
            rows = rows + self.attention(self.norm1(rows), spans)
            return rows + self._feed_forward(self.norm2(rows))
        rows = self.norm1(rows + self.attention(rows, spans))
        return self.norm2(rows + self._feed_forward(rows))

    def _feed_forward(self, rows: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        return self.down(self.up(rows, gelu=True))


class Transformer:
    """The blocks and a norm; yields the residual stream as it grows."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        sizes: Sizes,
        attentions: Sequence[Attention],
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.pre_norm = sizes.pre_norm
        self.norm = LayerNorm(checkpoint.weights, "norm", epsilon=sizes.epsilon, device=device)
        self.blocks = [
            Block(checkpoint, i, sizes, attention, precision=precision, device=device)
            for i, attention in enumerate(attentions)
        ]

    def states(
        self, rows: Float[Tensor, "M D"], spans: Sequence[int]
    ) -> Iterator[Float[Tensor, "M D"]]:
        """Yield h_0 (the input of block 1), then the output of each block, float32.

        Args:
            rows: frames with their positions; post-LN models normalize them first.
            spans: frames of each utterance.

        Pre-LN models: never with the final layer norm, which ``norm`` is.
        """
        if not self.pre_norm:
            rows = self.norm(rows)
        yield rows
        for block in self.blocks:
            rows = block(rows, spans)
            yield rows
