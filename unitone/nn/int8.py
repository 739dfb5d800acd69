"""Matrices in int8 for generation on a CPU: a scale for each output, one for each row as it comes.

A decoding step reads every weight once, so a quarter of the bytes is up to a quarter of the time.
Weights are rounded once, to the nearest of 127 steps on either side of 0 up to the largest of their
output. Rows are rounded likewise when they are multiplied, each by its own largest magnitude
(dynamic quantization, as in LLM.int8, arXiv 2208.07339, section 2.2.1), because processors multiply
bytes by bytes (VNNI) and not floats by bytes. The sums are of whole numbers, so a row's result does
not depend on its neighbors in the batch.

The products are FBGEMM's, which PyTorch carries. They take a tensor of a type that PyTorch 2.13
calls deprecated (issue 184982); oneDNN's, which need none, are slower by half for a single row.

Axes: I inputs, O outputs.
"""

import functools
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 127
"""Steps on either side of 0."""
ZERO = 128
"""What stands for 0 in a rounded row, whose type has no sign."""
LEAST = 1e-30
"""Taken for the largest magnitude of a row of zeros."""


class Int8Matrix:
    """y = x W^T, W in int8 and y in float32; `has_int8` must be true."""

    def __init__(self, weight: Float[Tensor, "O I"]) -> None:
        """Round the weights; a quarter of their size in float32 is kept, packed."""
        weight = weight.detach().float()
        scales = weight.abs().amax(1).clamp_(min=LEAST).div_(STEPS)
        rounded = (weight / scales[:, None]).round_().to(torch.int8)
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # deprecated: see above
            quantized = torch.ops.aten._make_per_channel_quantized_tensor(
                rounded, scales.double(), zeros, 0
            )
        self._packed = torch.ops.quantized.linear_prepack(quantized, None)

    def __call__(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Return x W^T."""
        peaks = x.abs().amax(-1, keepdim=True).clamp_(min=LEAST)
        return self._product(x / peaks, 1 / STEPS).mul_(peaks)

    def add(self, x: Float[Tensor, "*N I"], to: Float[Tensor, "*N O"]) -> Float[Tensor, "*N O"]:
        """Return ``to`` + x W^T."""
        return self(x).add_(to)

    def row(self, x: Float[Tensor, "1 I"]) -> Float[Tensor, "1 O"]:
        """Return x W^T of a single row, in fewer operations."""
        peak = float(torch.linalg.vector_norm(x, torch.inf))
        return self._product(x, max(peak, LEAST) / STEPS)

    def add_row(self, x: Float[Tensor, "1 I"], to: Float[Tensor, "1 O"]) -> Float[Tensor, "1 O"]:
        """Return ``to`` + x W^T."""
        return self.row(x).add_(to)

    def _product(self, x: Tensor, scale: float) -> Tensor:
        """Return x W^T of x in whole steps of ``scale``."""
        product: Tensor = _multiply(x, scale, ZERO, self._packed)
        return product


@functools.cache
def has_int8() -> bool:
    """Say whether FBGEMM's operators are there and compute what they should."""
    ramp = torch.linspace(-2.0, 2.0, 48 * 32, device="cpu").view(48, 32)
    rows, weight = ramp.sin(), (37 * ramp).cos()[:16]
    try:
        found = Int8Matrix(weight)(rows)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found, rows @ weight.T, atol=0.1)


if "fbgemm" in torch.backends.quantized.supported_engines:
    _multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
