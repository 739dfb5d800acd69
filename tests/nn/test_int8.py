"""Products in int8: never further from the exact one than rounding allows, row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unitone.nn.int8 import STEPS, Int8Matrix, has_int8

pytestmark = pytest.mark.skipif(not has_int8(), reason="this PyTorch has no FBGEMM")


def drawn(seed: int, *shape: int) -> Tensor:
    """Return rows whose sizes differ by factors of thousands."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return values * 10 ** (4 * torch.rand(shape[0], 1, generator=generator) - 2)


def bound(x: Tensor, weight: Tensor) -> Tensor:
    """Return the error at most: half a step of every factor, and of both."""
    half_x = 0.5001 / STEPS * x.abs().amax(1, keepdim=True).expand_as(x)
    half_w = 0.5001 / STEPS * weight.abs().amax(1, keepdim=True).expand_as(weight)
    return half_x @ weight.abs().T + x.abs() @ half_w.T + half_x @ half_w.T


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    inputs=st.integers(1, 150),
    outputs=st.integers(1, 70),
)
def test_the_error_is_that_of_rounding(seed: int, rows: int, inputs: int, outputs: int) -> None:
    x, weight = drawn(seed, rows, inputs), drawn(seed + 1, outputs, inputs)
    matrix, exact = Int8Matrix(weight), x @ weight.T
    allowed = bound(x, weight) + 1e-5 * (x.abs() @ weight.abs().T)
    together = matrix(x)
    assert ((together - exact).abs() <= allowed).all()
    for row in range(rows):
        assert torch.equal(matrix(x[row : row + 1])[0], together[row])  # its neighbors don't count
        assert ((matrix.row(x[row : row + 1]) - exact[row]).abs() <= allowed[row]).all()
    to = drawn(seed + 2, rows, outputs)
    assert torch.equal(matrix.add(x, to), together + to)
    assert torch.equal(matrix.add_row(x[:1], to[:1]), matrix.row(x[:1]) + to[:1])


def test_whole_steps_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-STEPS, STEPS + 1, (3, 2, 40), generator=generator).float()
    weight = torch.randint(-STEPS, STEPS + 1, (24, 40), generator=generator).float()
    x[..., 0], weight[:, 0] = STEPS, -STEPS
    assert torch.allclose(Int8Matrix(weight)(x), x @ weight.T, rtol=1e-6)


def test_zeros_stay_zeros() -> None:
    matrix = Int8Matrix(torch.zeros(5, 8))
    assert not matrix(torch.ones(2, 8)).any()
    matrix = Int8Matrix(torch.ones(5, 8))
    assert not matrix(torch.zeros(2, 8)).any()
    assert not matrix.row(torch.zeros(1, 8)).any()
