"""Frozen linear maps and layer norms in the precision of the encoder.

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

_PACK_ROWS = 512  # the number of rows that the packed layout is chosen for


class Linear:
    """y = x W^T + b, optionally followed by the exact GELU; y has the encoder's precision."""

    def __init__(
        self,
        weight: Float[Tensor, "O I"],
        bias: Float[Tensor, "O"] | None,
        *,
        precision: Precision,
        device: torch.device,
        pack: bool = True,
    ) -> None:
        """Convert the weights; ``pack`` them too unless they are for a single use."""
        self.dtype = DTYPES[precision]
        self.weight = weight.to(device, self.dtype).contiguous()
        self.bias = None if bias is None else bias.to(device, self.dtype).contiguous()
        self.fast = device.type == "cpu" and has_onednn(self.dtype)
        if self.fast and pack:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _PACK_ROWS)

    def __call__(self, rows: Float[Tensor, "M I"], *, gelu: bool = False) -> Float[Tensor, "M O"]:
        """Apply the map to ``rows`` of any floating type."""
        rows = rows.to(self.dtype)
        if self.fast:
            return _onednn(rows, self.weight, self.bias, gelu=gelu)
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
        """Normalise each row."""
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.epsilon)


def product(left: Float[Tensor, "M I"], right: Float[Tensor, "O I"]) -> Float[Tensor, "M O"]:
    """Return left right^T; both on the CPU, ``right`` contiguous or the transpose of such."""
    if has_onednn(left.dtype):
        return _onednn(left, right, None, gelu=False)
    return left @ right.T


@functools.cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Say whether oneDNN's operators are there for ``dtype`` and compute what they should."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    ramp = torch.linspace(-2.0, 2.0, 48 * 32).view(48, 32)
    rows, weight = ramp.sin().to(dtype), (37 * ramp).cos()[:16].to(dtype)
    bias = weight.float().sum(dim=1).to(dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACK_ROWS)
        tried = [_onednn(rows, w, bias, gelu=gelu) for w in (weight, packed) for gelu in (0, 1)]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    plain = [_plain(rows.float(), weight.float(), bias.float(), gelu=gelu) for gelu in (0, 1)]
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    return all(
        torch.allclose(one.float(), other, rtol=tolerance, atol=tolerance)
        for one, other in zip(tried, plain * 2, strict=True)
    )


def _plain(rows: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool | int) -> Tensor:
    out = F.linear(rows, weight, bias)
    return F.gelu(out) if gelu else out


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool | int) -> Tensor:
    activation, variant = ("gelu", "none") if gelu else ("none", "")
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, activation, [], variant)
    return out
