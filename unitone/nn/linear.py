"""Matrices that compute and don't learn, as oneDNN multiplies them; and a frozen layer norm.

On a CPU, PyTorch sends float32 products to MKL, which uses half of an AMD core's vector width or
less. oneDNN, which PyTorch carries for bfloat16, is 2 to 3 times as fast there and equal elsewhere,
keeps the weights in its own packed layout and applies GELU to a tile while it is in the cache. It
is reached through the operators that ``torch.compile`` emits. They are not public, so they are used
only where a trial product agrees with the plain one; ``product`` and ``Linear`` fall back to it.

Axes: M rows, I inputs, O outputs.
"""

import functools
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Precision = Literal["fp32", "bf16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

FEW_ROWS, MANY_ROWS = 16, 512
"""Rows of a product that the packed layout is chosen for: of a decoding step (the choice is good
for 1 to 1000), and of an encoder's frames."""


def pack(weight: Float[Tensor, "O I"], *, rows: int = FEW_ROWS) -> Tensor | None:
    """Return the matrix in oneDNN's order, None where there is no such product."""
    if weight.device.type != "cpu" or not has_onednn(weight.dtype):
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return packed


def multiply(
    x: Float[Tensor, "*N I"],
    packed: Tensor,
    bias: Float[Tensor, "O"] | None = None,
    *,
    gelu: bool = False,
) -> Float[Tensor, "*N O"]:
    """Return x W^T + b, or its exact GELU, of a matrix that `pack` returned, or of a plain one."""
    if gelu:
        activated: Tensor = _product(x, packed, bias, "gelu", [], "none")
        return activated
    product: Tensor = _product(x, packed, bias, "none", [], "")
    return product


class Linear:
    """y = x W^T + b, optionally followed by the exact GELU; y has the precision that was asked."""

    def __init__(
        self,
        weight: Float[Tensor, "O I"],
        bias: Float[Tensor, "O"] | None,
        *,
        precision: Precision,
        device: torch.device,
        once: bool = False,
    ) -> None:
        """Convert the weights, and pack them unless they are for a single use."""
        self.dtype = DTYPES[precision]
        self.weight = weight.to(device, self.dtype).contiguous()
        self.bias = None if bias is None else bias.to(device, self.dtype).contiguous()
        self.fast = device.type == "cpu" and has_onednn(self.dtype)
        packed = None if once else pack(self.weight, rows=MANY_ROWS)
        self.weight = self.weight if packed is None else packed

    def __call__(self, rows: Float[Tensor, "M I"], *, gelu: bool = False) -> Float[Tensor, "M O"]:
        """Apply the map to ``rows`` of any floating type."""
        rows = rows.to(self.dtype)
        if self.fast:
            return multiply(rows, self.weight, self.bias, gelu=gelu)
        return _plain(rows, self.weight, self.bias, gelu=gelu)


class LayerNorm:
    """Layer norm with float32 statistics; the result has the type of its input."""

    def __init__(
        self, weights: Mapping[str, Tensor], name: str, *, epsilon: float, device: torch.device
    ) -> None:
        self.weight = weights[f"{name}.weight"].to(device)
        self.bias = weights[f"{name}.bias"].to(device)
        self.epsilon = epsilon

    def __call__(self, rows: Float[Tensor, "*M I"]) -> Float[Tensor, "*M I"]:
        """Normalize each row."""
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.epsilon)


def product(left: Float[Tensor, "M I"], right: Float[Tensor, "O I"]) -> Float[Tensor, "M O"]:
    """Return left right^T; both on the CPU, ``right`` contiguous or the transpose of such."""
    return multiply(left, right) if has_onednn(left.dtype) else left @ right.T


@functools.cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Say whether oneDNN's operators are there for ``dtype`` and compute what they should."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    if dtype not in DTYPES.values():
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    ramp = torch.linspace(-2.0, 2.0, 48 * 32, dtype=torch.float32, device="cpu").view(48, 32)
    rows, weight = ramp.sin().to(dtype), (37 * ramp).cos()[:16].to(dtype)
    bias = weight.float().sum(dim=1).to(dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    try:
        for tried in (weight, torch.ops.mkldnn._reorder_linear_weight(weight, MANY_ROWS)):
            for gelu in (False, True):
                fast = multiply(rows, tried, bias, gelu=gelu).float()
                with torch.autocast("cpu", enabled=False):
                    plain = _plain(rows.float(), weight.float(), bias.float(), gelu=gelu)
                if not torch.allclose(fast, plain, rtol=tolerance, atol=tolerance):
                    return False
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True


def _plain(rows: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> Tensor:
    out = F.linear(rows, weight, bias)
    return F.gelu(out) if gelu else out


if torch.backends.mkldnn.is_available():  # a PyTorch without oneDNN has no such operation
    _product = torch.ops.mkldnn._linear_pointwise.default
