"""The conformer against plain loops in float64, and independent of its batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unitone.errors import ConfigError
from unitone.nn.conformer import NORM_EPS, Conformer, ConformerConfig, initialize

CONFIG = ConformerConfig(dim=24, layers=2, heads=2, ffn=40, kernel=5)


def conformer(config: ConformerConfig = CONFIG) -> Conformer:
    model = Conformer(config)
    initialize(model, torch.Generator().manual_seed(0))
    return model.eval()


def states(*lengths: int, dim: int = CONFIG.dim, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, dim, generator=generator) for length in lengths]


def batched(rows: list[Tensor], *, longer: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows with noise for padding, and which frames are theirs."""
    length = max(map(len, rows)) + longer
    valid = torch.stack([torch.arange(length) < len(row) for row in rows])
    x = torch.randn(len(rows), length, rows[0].shape[1], generator=torch.Generator().manual_seed(9))
    for number, row in enumerate(rows):
        x[number, : len(row)] = row
    return x, valid


def norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    mean = x.mean()
    found = (x - mean) / ((x - mean).square().mean() + eps).sqrt() * weight
    return found if bias is None else found + bias


def plain(block: nn.Module, x: Tensor) -> Tensor:
    """Return what a block makes of one row (T, D), frame by frame."""
    w: dict[str, Tensor] = {name: value.double() for name, value in block.state_dict().items()}
    config, length = CONFIG, len(x)

    def half(x: Tensor, name: str) -> Tensor:
        n = norm(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"])
        inner = w[f"{name}.1.weight"] @ n + w[f"{name}.1.bias"]
        return x + 0.5 * (w[f"{name}.4.weight"] @ (inner * inner.sigmoid()) + w[f"{name}.4.bias"])

    def turned(vector: Tensor, place: int) -> Tensor:
        width = config.head_dim
        out = vector.clone()
        for pair in range(width // 2):
            angle = place * config.rope_theta ** (-2 * pair / width)
            a, b = vector[pair], vector[pair + width // 2]
            out[pair] = a * math.cos(angle) - b * math.sin(angle)
            out[pair + width // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    x = torch.stack([half(frame, "first") for frame in x])
    keys = [
        w["attention.qkv.weight"]
        @ norm(frame, w["attention.norm.weight"], w["attention.norm.bias"])
        for frame in x
    ]
    mixed = torch.zeros_like(x)
    width = config.head_dim
    for head in range(config.heads):
        part = [key.unflatten(0, (3, config.heads, width))[:, head] for key in keys]
        for t in range(length):
            scores = torch.stack(
                [turned(part[t][0], t) @ turned(part[s][1], s) / width**0.5 for s in range(length)]
            )
            weights = scores.exp() / scores.exp().sum()
            mixed[t, head * width : (head + 1) * width] = sum(
                (weights[s] * part[s][2] for s in range(length)), start=torch.zeros(width).double()
            )
    x = x + mixed @ w["attention.out.weight"].T + w["attention.out.bias"]
    gates = []
    for frame in x:
        n = norm(frame, w["convolution.norm.weight"], w["convolution.norm.bias"])
        up = w["convolution.up.weight"] @ n + w["convolution.up.bias"]
        gates.append(up[: 2 * config.dim] * up[2 * config.dim :].sigmoid())
    convolved = []
    for t in range(length):
        total = w["convolution.mix.bias"].clone()
        for tap in range(config.kernel):
            at = t + tap - config.kernel // 2
            if 0 <= at < length:
                total = total + w["convolution.mix.weight"][:, 0, 0, tap] * gates[at]
        inner = norm(total * total.sigmoid(), w["convolution.inner_norm.weight"], None, NORM_EPS)
        convolved.append(w["convolution.down.weight"] @ inner + w["convolution.down.bias"])
    x = x + torch.stack(convolved)
    x = torch.stack([half(frame, "second") for frame in x])
    weight, bias = w["norm.weight"], w["norm.bias"]
    return torch.stack([norm(frame, weight, bias) for frame in x])


def test_a_block_is_that_of_plain_loops() -> None:
    model = conformer()
    (row,) = states(7)
    expected = plain(model.blocks[1], plain(model.blocks[0], row.double()))
    found = model(row[None], torch.ones(1, 7, dtype=torch.bool))[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    longer=st.integers(0, 9),
)
def test_a_row_does_not_depend_on_its_batch(lengths: list[int], longer: int) -> None:
    """To the bit, in inference on a CPU."""
    model, rows = conformer(), states(*lengths)
    with torch.inference_mode():
        together = model(*batched(rows, longer=longer))
        for number, row in enumerate(rows):
            alone = model(row[None], torch.ones(1, len(row), dtype=torch.bool))[0]
            assert torch.equal(together[number, : len(row)], alone)


def test_gradients_do_not_depend_on_padding() -> None:
    rows = states(5, 9)
    grads = []
    for longer in (0, 6):
        model = conformer()
        x, valid = batched(rows, longer=longer)
        model(x, valid)[valid].square().sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_frame_sees_the_whole_row_and_nothing_else() -> None:
    model, rows = conformer(), states(6, 4)
    x, valid = batched(rows)
    x.requires_grad_()
    model(x, valid)[1, 0, 0].backward()  # the sum of a normed frame is a constant
    assert x.grad is not None
    seen = x.grad.abs().sum(dim=-1) > 0
    assert seen.tolist() == [[False] * 6, [True] * 4 + [False] * 2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "dim 24 must be an even multiple of heads 5"),
        ({"heads": 8}, "dim 24 must be an even multiple of heads 8"),
        ({"kernel": 4}, "kernel must be odd"),
    ],
)
def test_shapes_that_cannot_be_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConformerConfig(**{"dim": 24, "layers": 1, "heads": 2, "ffn": 8, **fields})
