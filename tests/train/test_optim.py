"""Optimizers against their formulas, schedules against their corners."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unitone.train import optim
from unitone.train.config import OptimizerName
from unitone.train.schedules import Schedule, lr_factor


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 4)) for _ in range(2)
        )
        self.head = nn.Linear(4, 5)
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)


def built(
    model: Tiny, name: OptimizerName, *, weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    return optim.build(
        model,
        blocks=list(model.blocks),
        name=name,
        lr=0.1,
        betas=(0.9, 0.95),
        weight_decay=weight_decay,
    )


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    model = Tiny()
    muon, adamw = built(model, "muon")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    by_adamw = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert by_muon == {f"blocks.{i}.{j}.weight" for i in (0, 1) for j in (0, 2)}
    assert by_muon | by_adamw == set(names.values())
    assert not by_muon & by_adamw


def test_vectors_do_not_decay() -> None:
    model = Tiny()
    (adamw,) = built(model, "adamw", weight_decay=0.3)
    for group in adamw.param_groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.3}


def test_frozen_parameters_are_not_trained() -> None:
    model = Tiny()
    model.embedding.requires_grad_(False)
    trained = [p for o in built(model, "muon") for g in o.param_groups for p in g["params"]]
    assert not any(p is model.embedding.weight for p in trained)


@given(rows=st.integers(2, 12), columns=st.integers(2, 12), seed=st.integers(0, 99))
def test_newton_schulz_makes_matrices_nearly_orthogonal(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(2, rows, rows, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(2, columns, columns, generator=generator)).Q
    rank = min(rows, columns)
    values = torch.rand(2, 1, rank, generator=generator) + 0.05
    matrices = 7 * (left[:, :, :rank] * values) @ right[:, :rank]

    found = optim.newton_schulz(matrices)

    singular = torch.linalg.svdvals(found)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    # the singular vectors stay: U^T X V is diagonal
    core = left[:, :, :rank].transpose(1, 2) @ found @ right[:, :rank].transpose(1, 2)
    torch.testing.assert_close(
        core, torch.diag_embed(core.diagonal(dim1=1, dim2=2)), atol=1e-3, rtol=0
    )


def test_a_step_of_muon_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    start, first, second = torch.randn(3, 4, 6, generator=generator)
    weight = nn.Parameter(start.clone())
    muon = optim.Muon([weight], lr=0.1, weight_decay=0.2)
    expected, momentum = start, torch.zeros(4, 6)
    for gradient in (first, second):
        weight.grad = gradient.clone()
        muon.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        nesterov = 0.05 * gradient + 0.95 * momentum
        direction = optim.newton_schulz(nesterov[None])[0]
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * 0.2 * math.sqrt(6) * direction
    torch.testing.assert_close(weight.detach(), expected)


def test_updates_of_muon_have_the_size_of_adamws() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in [(64, 64), (32, 256), (256, 32)]:
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape, generator=generator)
        optim.Muon([weight], lr=1.0, weight_decay=0.0).step()
        assert 0.1 < float(weight.detach().square().mean().sqrt()) < 0.3


def test_clipping_scales_first_and_returns_the_norm_before() -> None:
    parameters = [
        nn.Parameter(torch.zeros(3)),
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(1)),
    ]
    parameters[0].grad = torch.tensor([3.0, 0.0, 0.0])
    parameters[1].grad = torch.tensor([0.0, 4.0])
    norm = optim.scale_and_clip(parameters, scale=torch.tensor(2.0), max_norm=1.0)
    assert norm.item() == pytest.approx(10.0)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0, 0.0]))
    norm = optim.scale_and_clip(parameters, scale=torch.tensor(0.5), max_norm=None)
    assert norm.item() == pytest.approx(0.5)
    norm = optim.scale_and_clip(parameters, scale=torch.tensor(2.0), max_norm=3.0)
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.0, 0.8]))
    assert optim.scale_and_clip(parameters[2:], scale=torch.tensor(2.0), max_norm=None) == 0


def test_the_average_follows_and_swaps() -> None:
    module = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(module.weight)
    ema = optim.Ema(module, decay=0.9)
    nn.init.ones_(module.weight)
    expected = 0.0
    for n in range(30):
        ema.update()
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay)
        assert ema.averages["weight"][0, 0].item() == pytest.approx(expected, rel=1e-5)
    with ema.swapped():
        torch.testing.assert_close(module.weight.detach(), torch.full((1, 2), expected))
    torch.testing.assert_close(module.weight.detach(), torch.ones(1, 2))


def at(schedule: Schedule, progress: float, warmup: float = 1.0) -> float:
    return lr_factor(schedule, progress=progress, warmup=warmup, decay_share=0.25, floor=0.04)


SCHEDULES: list[Schedule] = ["wsd", "tri-stage", "cosine", "constant"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_begin_at_the_peak_and_end_at_the_floor(schedule: Schedule) -> None:
    assert at(schedule, 0.0) == 1.0
    assert at(schedule, 0.0, warmup=0.3) == pytest.approx(0.3)
    assert at(schedule, 1.0) == pytest.approx(1.0 if schedule == "constant" else 0.04)
    assert at(schedule, 1.7) == at(schedule, 1.0)


def test_schedules_by_hand() -> None:
    assert at("wsd", 0.75) == at("tri-stage", 0.75) == 1.0
    assert at("wsd", 0.875) == pytest.approx(0.52)
    assert at("tri-stage", 0.875) == pytest.approx(0.2)  # geometric mean of 1 and 0.04
    assert at("cosine", 0.5) == pytest.approx(0.52)


@given(schedule=st.sampled_from(SCHEDULES), progress=st.floats(0, 1), further=st.floats(0, 1))
def test_schedules_never_rise_after_the_warmup(
    schedule: Schedule, progress: float, further: float
) -> None:
    low, high = sorted([progress, further])
    assert at(schedule, high) <= at(schedule, low) + 1e-12
    assert 0.04 - 1e-12 <= at(schedule, high) <= 1
