"""The block of ConvNeXt (Liu et al. 2022, arXiv 2201.03545) in one dimension.

Frames that aren't valid are zero before the convolution: a row doesn't depend on its batch mates.

Axes: B batch, T frames, D width.
"""

from typing import TYPE_CHECKING, Literal

from jaxtyping import Bool, Float
from torch import Tensor, full, nn
from torch.nn import functional


class DepthwiseConv(nn.Conv2d):
    """Every channel by itself over ``kernel`` frames, the edges padded with zeros.

    A 2-D convolution of height 1: its channels-last form is our (B, T, D) as it lies in memory, and
    on CPUs it runs 6 times as fast as the same thing as a 1-D convolution.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        """Make one for ``dim`` channels; ``kernel`` is odd."""
        super().__init__(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the sums; frames that aren't valid are to be zero in ``x``."""
        return super().forward(x.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)


class ConvNextBlock(nn.Module):
    """Depthwise convolution, layer norm, two projections with GELU between them, residual."""

    def __init__(
        self,
        dim: int,
        *,
        kernel: int,
        expansion: int,
        scale: float | None = None,
        dropout: float = 0.0,
        gelu: Literal["none", "tanh"] = "none",
    ) -> None:
        """Build a block of width ``dim``.

        Args:
            dim: width.
            kernel: frames the convolution sees; odd.
            expansion: width between the projections, in units of ``dim``.
            scale: initial factor of the branch's channels, which is learnt; None: there is none.
            dropout: of the branch.
            gelu: how the error function is approximated.
        """
        super().__init__()
        self.mix = DepthwiseConv(dim, kernel)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, dim * expansion)
        self.down = nn.Linear(dim * expansion, dim)
        self.scale = None if scale is None else nn.Parameter(full((dim,), scale))
        self.dropout = nn.Dropout(dropout)
        self.gelu = gelu

    def forward(
        self, x: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Return ``x`` with what its neighborhood adds; frames that aren't valid mean nothing."""
        x = x * valid[:, :, None]
        inner = functional.gelu(self.up(self.norm(self.mix(x))), approximate=self.gelu)
        branch = self.down(inner) if self.scale is None else self.scale * self.down(inner)
        result: Tensor = x + self.dropout(branch)
        return result

    if TYPE_CHECKING:
        __call__ = forward
