"""How fast the pairs of a head turn with the position, for plain and for stretched contexts.

Plain is RoPE (Su et al. 2021, arXiv 2104.09864). A model whose context was made longer after its
training turns more slowly: ``linear`` all pairs by the same factor (Chen et al. 2023, arXiv
2306.15595); ``llama3``, that of Llama 3.1 (arXiv 2407.21783), only those that turn so seldom within
the old context that new positions would bring angles never seen.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from unitone.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    kind: Literal["linear", "llama3"]
    """All pairs alike, or the slow ones only."""
    factor: float
    """How many times as slow."""
    low_freq_factor: float = 1.0
    """llama3: pairs with fewer turns than this within the old context are slowed down fully."""
    high_freq_factor: float = 4.0
    """llama3: pairs with more turns are left alone; between the two it goes over evenly."""
    original_context: int = 8192
    """llama3: positions of the old context."""

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and math.isfinite(self.factor)):
            raise ConfigError(f"factor of the rope scaling must be at least 1, got {self.factor:g}")
        if not self.low_freq_factor < self.high_freq_factor:
            raise ConfigError(
                f"low_freq_factor {self.low_freq_factor:g} must be less than high_freq_factor "
                f"{self.high_freq_factor:g}"
            )
        if self.original_context < 1:
            raise ConfigError(f"original_context must be at least 1, got {self.original_context}")


def frequencies(
    width: int, *, theta: float, scaling: RopeScaling | None, device: torch.device
) -> Float32[Tensor, "pairs"]:
    """Return the angle that each pair of a head of ``width`` turns from a position to the next.

    Args:
        width: of a head; its pairs are half as many.
        theta: base of the wavelengths.
        scaling: for a longer context than the model was first trained with.
        device: where the angles are needed.
    """
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    plain: Tensor = theta**-exponents
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = plain * (scaling.original_context / (2 * math.pi))
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * (kept + (1 - kept) / scaling.factor)


def angles(
    positions: Int[Tensor, "B L"],
    width: int,
    *,
    theta: float,
    scaling: RopeScaling | None = None,
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "B L 1 K"], Float[Tensor, "B L 1 K"]]:
    """Return cosine and signed sine of each position's angles, as `rotate` takes them.

    Arguments as `frequencies`; K is ``width``.
    """
    turns = frequencies(width, theta=theta, scaling=scaling, device=positions.device)
    turned = positions[..., None].float() * turns
    cos, sin = turned.cos(), turned.sin()
    cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
    return cos[:, :, None].to(dtype), sin[:, :, None].to(dtype)


def rotate(
    x: Float[Tensor, "B L H K"], cos: Float[Tensor, "#B L 1 K"], sin: Float[Tensor, "#B L 1 K"]
) -> Float[Tensor, "B L H K"]:
    """Turn the pairs (x_i, x_{i+K/2}) by their position's angles; ``sin`` carries the signs."""
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), dim=-1)
    return x * cos + swapped * sin
