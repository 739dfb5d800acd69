"""The conformer (Gulati et al. 2020, arXiv 2005.08100) with rotary positions, over whole rows.

As T2V2 has it (Goswami, Wang & Harada, ICLR 2025): feed-forwards in half steps around attention and
a convolution module, a layer norm after each block, no positions but RoPE's (Su et al. 2021, arXiv
2104.09864). Frames that aren't valid are zero before the convolution and unseen in attention, so a
row doesn't depend on its batch mates.

Axes: B rows, T frames, D width, H heads, K width of a head.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unitone.errors import ConfigError
from unitone.nn.convnext import DepthwiseConv
from unitone.nn.rotary import angles, rotate
from unitone.nn.transformer import attend

NORM_EPS = 1e-6
"""Least variance of the norm after the depthwise convolution."""
WHOLE = 16
"""In inference, rows are padded to a multiple of so many frames: the last few of a row that is no
multiple of the vectors' width go another way through the CPU's kernels, whose rounding differs, and
a row would not be the same to the bit beside a longer one."""


@dataclass(frozen=True, kw_only=True)
class ConformerConfig:
    dim: int
    """Width D."""
    layers: int
    """Number of blocks."""
    heads: int
    """Attention heads H."""
    ffn: int
    """Width of the feed-forwards between their two matrices."""
    kernel: int = 7
    """Frames that the convolution sees; odd."""
    dropout: float = 0.0
    """Of what feed-forwards, attention and convolution add."""
    rope_theta: float = 10_000.0
    """Base of the rotary wavelengths."""

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.head_dim % 2:
            raise ConfigError(
                f"dim {self.dim} must be an even multiple of heads {self.heads}: rotary positions "
                "turn pairs"
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd, got {self.kernel}")

    @property
    def head_dim(self) -> int:
        """Width K of a head."""
        return self.dim // self.heads


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Where the frames of a batch stand; `Conformer.frames` makes it."""

    valid: Float[Tensor, "B T 1"]
    """1 at frames, 0 at padding, in the precision of the states."""
    seen: Bool[Tensor, "B 1 1 T"]
    """The same, as attention takes it."""
    cos: Float[Tensor, "1 T 1 K"]
    sin: Float[Tensor, "1 T 1 K"]


class FeedForward(nn.Sequential):
    """Norm, up, SiLU, down."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, config.ffn),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.ffn, config.dim),
            nn.Dropout(config.dropout),
        )


class Attention(nn.Module):
    """Norm, then attention that sees both ways."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T D"], at: Frames) -> Float[Tensor, "B T D"]:
        """Mix the valid frames of each row."""
        qkv = rearrange(self.qkv(self.norm(x)), "b t (h k) -> b t h k", h=3 * self.heads)
        turned = rotate(qkv[:, :, : 2 * self.heads], at.cos, at.sin)
        query, key = rearrange(turned, "b t (two h) k -> two b h t k", two=2)
        value = qkv[:, :, 2 * self.heads :].transpose(1, 2)
        mixed = attend(query, key, value, mask=at.seen, causal=False)
        joined: Tensor = self.dropout(self.out(rearrange(mixed, "b h t k -> b t (h k)")))
        return joined


class Convolution(nn.Module):
    """Norm, gate, depthwise convolution, SiLU, norm, projection; inside, twice as wide."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, 4 * config.dim)
        self.mix = DepthwiseConv(2 * config.dim, config.kernel)
        self.inner_norm = nn.LayerNorm(2 * config.dim, eps=NORM_EPS, bias=False)
        self.down = nn.Linear(2 * config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T D"], at: Frames) -> Float[Tensor, "B T D"]:
        """Mix each frame with its neighbors."""
        gated = F.glu(self.up(self.norm(x)), dim=-1)
        mixed = self.mix(gated * at.valid)
        added: Tensor = self.dropout(self.down(self.inner_norm(F.silu(mixed))))
        return added


class Block(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.first = FeedForward(config)
        self.attention = Attention(config)
        self.convolution = Convolution(config)
        self.second = FeedForward(config)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Float[Tensor, "B T D"], at: Frames) -> Float[Tensor, "B T D"]:
        """Return the states after this block."""
        x = x + 0.5 * self.first(x)
        x = x + self.attention(x, at)
        x = x + self.convolution(x, at)
        normed: Tensor = self.norm(x + 0.5 * self.second(x))
        return normed


class Conformer(nn.Module):
    """The blocks; what comes out is the last one's, normed."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(
        self, x: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Return the states; those of frames that aren't valid mean nothing.

        Args:
            x: embeddings.
            valid: True at frames; each row has one or more.
        """
        length = x.shape[1]
        if not torch.is_grad_enabled():
            more = -length % WHOLE
            x, valid = F.pad(x, (0, 0, 0, more)), F.pad(valid, (0, more))
        at = self.frames(valid, x.dtype)
        for block in self.blocks:
            x = block(x, at)
        return x[:, :length]

    def frames(self, valid: Bool[Tensor, "B T"], dtype: torch.dtype) -> Frames:
        """Return where frames stand, for `Block`."""
        positions = torch.arange(valid.shape[1], device=valid.device)[None]
        config = self.config
        cos, sin = angles(positions, config.head_dim, theta=config.rope_theta, dtype=dtype)
        return Frames(
            valid=valid[:, :, None].to(dtype), seen=valid[:, None, None], cos=cos, sin=sin
        )

    if TYPE_CHECKING:
        __call__ = forward


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of ``module`` from ``generator`` alone; biases are zero, norms one.

    Matrices are normal with variance 1 / inputs (so that branches start at the size of what they
    are added to), tables of embeddings standard normal.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5, generator=generator)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, generator=generator)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        bias = getattr(part, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
