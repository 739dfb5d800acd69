"""The pre-norm transformer in the Llama layout, for training, for packed rows and with a cache.

RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467), rotary positions (Su et al. 2021, arXiv
2104.09864), SwiGLU (Shazeer 2020, arXiv 2002.05202) and grouped-query attention (Ainslie et al.
2023, arXiv 2305.13245), put together as in Llama (Touvron et al. 2023, arXiv 2302.13971), without
biases.

Axes: B rows, L positions of a row, S positions of the cache, D model width, H query heads, G key
and value heads (H a multiple of G), K width of a head.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unitone.errors import ConfigError
from unitone.nn.rotary import RopeScaling, angles, rotate

SHORT = 512
"""Training on a CPU, rows up to this length go through two plain matrix products: the backward
pass of the fused kernel takes three times as long (64 rows x 112 positions, bf16: 59 ms, 21 ms)."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    dim: int
    """Model width D."""
    layers: int
    """Number of blocks."""
    heads: int
    """Query heads H."""
    kv_heads: int
    """Key and value heads G; fewer than ``heads`` is grouped-query attention."""
    ffn: int
    """Width of the feed-forward network between its two matrices."""
    head_width: int | None = None
    """Width of a head; None is D / H."""
    rope_theta: float = 10_000.0
    """Base of the rotary wavelengths."""
    rope_scaling: RopeScaling | None = None
    """How they were stretched, in a pretrained model with a longer context."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    dropout: float = 0.0
    """Of what attention and feed-forward add to the residual stream."""
    checkpoint_activations: bool = False
    """Keep only the inputs of the blocks and compute the rest again in the backward pass."""

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "kv_heads", "ffn"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.dim % self.heads:  # with a head_width too: Transformers' Llama insists on it
            raise ConfigError(f"dim {self.dim} must be a multiple of heads {self.heads}")
        if self.head_dim < 2 or self.head_dim % 2:
            which = "dim / heads" if self.head_width is None else "head_width"
            raise ConfigError(f"{which} must be even and at least 2, got {self.head_dim}")
        if self.heads % self.kv_heads:
            raise ConfigError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")

    @property
    def head_dim(self) -> int:
        """Width K of a head."""
        return self.dim // self.heads if self.head_width is None else self.head_width


@dataclass(frozen=True, kw_only=True)
class AttentionContext:
    """Where the positions of a batch stand and what they may see."""

    cos: Float[Tensor, "B L 1 K"]
    sin: Float[Tensor, "B L 1 K"]
    mask: Bool[Tensor, "B 1 L S"] | None
    """True where a position may look; None leaves it to ``causal``."""
    causal: bool
    """A position sees itself and what is before it. A single query, after a cache, sees all."""


Stored = tuple[Float[Tensor, "B _ L K"], Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]
"""Of a layer: where keys and values of new positions go, and the keys and the values of all."""


class Cache:
    """Keys and values of the positions seen so far; rows end at the same slot (left padding)."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        rows: int,
        slots: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Reserve room for ``slots`` positions of ``rows`` rows; more is reserved when needed.

        On a CPU they are kept in fp32: its kernels take six times as long for one bf16 query.
        """
        if device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
            dtype = torch.float32
        shape = (config.layers, rows, 2 * config.kv_heads, slots, config.head_dim)
        self._store = torch.empty(shape, device=device, dtype=dtype)
        self.filled = 0
        """Slots in use."""

    @property
    def slots(self) -> int:
        """Slots there are."""
        return self._store.shape[3]

    def extend(
        self, layer: int, key: Float[Tensor, "B G L K"], value: Float[Tensor, "B G L K"]
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
        """Put the keys and values of L new positions after the others; return all of them."""
        new, keys, values = self.reserve(key.shape[2])[layer]
        new[:, : key.shape[1]] = key
        new[:, key.shape[1] :] = value
        return keys, values

    def reserve(self, length: int) -> "list[Stored]":
        """Make room for ``length`` new positions; return the views of each layer."""
        end, groups = self.filled + length, self._store.shape[2] // 2
        if end > self.slots:
            filled = self._store[:, :, :, : self.filled]
            self._move(filled, slots=max(end, self.slots * 3 // 2))
        new = self._store[:, :, :, self.filled : end].unbind()
        keys = self._store[:, :, :groups, :end].unbind()
        values = self._store[:, :, groups:, :end].unbind()
        return list(zip(new, keys, values, strict=True))

    def select(self, rows: Int[Tensor, "B"], *, start: int = 0) -> None:
        """Make row ``rows[b]`` the new row b: beams that go on, sequences that are not finished.

        Where the number of rows stays, the slots before ``start`` stay too: those of a prompt that
        the old and the new row share.
        """
        if len(rows) == self._store.shape[1]:
            moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
            filled = self._store[:, :, :, start : self.filled]
            filled[:, moved] = filled.index_select(1, rows[moved])
            return
        self._move(self._store[:, :, :, : self.filled].index_select(1, rows), slots=self.slots)

    def _move(self, filled: Tensor, *, slots: int) -> None:
        layers, rows, heads, count, width = filled.shape
        self._store = filled.new_empty((layers, rows, heads, slots, width))
        self._store[:, :, :, :count] = filled


def attend(
    query: Float[Tensor, "B H L K"],
    key: Float[Tensor, "B G S K"],
    value: Float[Tensor, "B G S K"],
    *,
    mask: Bool[Tensor, "B 1 #L S"] | None,
    causal: bool,
) -> Float[Tensor, "B H L K"]:
    """Scaled dot-product attention.

    Args:
        query: of the positions that look; with ``causal`` they are all, or one: the last.
        key: of the positions looked at.
        value: of the same.
        mask: True where a position may look.
        causal: instead of a mask: look at the positions up to one's own; without either, at all.
    """
    if key.dtype != query.dtype:  # out of a cache on a CPU
        return attend(query.to(key.dtype), key, value, mask=mask, causal=causal).to(query.dtype)
    causal = causal and query.shape[2] > 1
    if query.device.type == "cpu" and torch.is_grad_enabled() and key.shape[2] <= SHORT:
        return _attend_short(query, key, value, mask=mask, causal=causal)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=causal,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _attend_short(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, causal: bool
) -> Tensor:
    rows, heads, length, width = query.shape
    group = heads // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    bias = query.new_zeros(length, key.shape[2])
    if causal:
        bias = bias.masked_fill_(torch.ones_like(bias, dtype=torch.bool).triu_(1), -torch.inf)
    elif mask is not None:
        whole = query.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        bias = whole.expand(rows, heads, -1, -1).flatten(0, 1)
    scores = torch.baddbmm(
        bias, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=width**-0.5
    )
    mixed = torch.bmm(scores.softmax(-1), value.flatten(0, 1))
    return mixed.view(rows, heads, length, width)


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the precision of its input."""

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Return ``x`` divided by its root mean square over D, times the weight."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.qkv = nn.Linear(
            config.dim, (config.heads + 2 * config.kv_heads) * config.head_dim, bias=False
        )
        self.out = nn.Linear(config.heads * config.head_dim, config.dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        context: AttentionContext,
        *,
        cache: Cache | None,
        layer: int,
    ) -> Float[Tensor, "B L D"]:
        """Mix the positions of each row."""
        qkv = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        turned = rotate(qkv[:, :, : self.heads + self.kv_heads], context.cos, context.sin)
        query, key = turned.transpose(1, 2).split([self.heads, self.kv_heads], dim=1)
        value = qkv[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        mixed = attend(query, key, value, mask=context.mask, causal=context.causal)
        joined: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return joined


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.dim, 2 * config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.dim, bias=False)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Transform every position by itself."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        transformed: Tensor = self.down(F.silu(gate) * up)
        return transformed


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and added to the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        context: AttentionContext,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "B L D"]:
        """Return the residual stream after this block."""
        mixed = self.attention(self.attention_norm(x), context, cache=cache, layer=layer)
        x = x + self.dropout(mixed)
        added: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return added


class Transformer(nn.Module):
    """The blocks and the norm after them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        *,
        positions: Int[Tensor, "B L"],
        causal: bool,
        mask: Bool[Tensor, "B 1 L S"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Return the normed residual stream.

        Args:
            x: embeddings.
            positions: place of each position in its own sequence, from 0.
            causal: a position sees those up to its own; a single new one, everything in the cache.
            mask: True where position l may look at s; instead of ``causal``.
            cache: the positions before ``x``; those of ``x`` are added to it.
        """
        cos, sin = self.angles(positions, x.dtype)
        context = AttentionContext(cos=cos, sin=sin, mask=mask, causal=causal)
        for layer, block in enumerate(self.blocks):
            if cache is not None:  # not what training may have compiled
                x = block.forward(x, context, cache, layer)
            elif self.config.checkpoint_activations and self.training:
                x = checkpoint(block, x, context, use_reentrant=False)
            else:  # without the number of the layer, so that all blocks compile to one
                x = block(x, context)
        if cache is not None:
            cache.filled += x.shape[1]
        normed: Tensor = self.norm(x)
        return normed

    def angles(
        self, positions: Int[Tensor, "B L"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "B L 1 K"], Float[Tensor, "B L 1 K"]]:
        """Return cosine and signed sine of each position's angles, as `rotate` takes them."""
        config = self.config
        return angles(
            positions,
            config.head_dim,
            theta=config.rope_theta,
            scaling=config.rope_scaling,
            dtype=dtype,
        )


def packed_mask(segments: Int[Tensor, "B L"]) -> Bool[Tensor, "B 1 L L"]:
    """Return who sees whom in packed rows: a position sees the earlier ones of its own segment."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return (segments[:, :, None] == segments[:, None, :])[:, None] & causal
