"""The checks that know no model, on two networks that train each other, and what they find."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from tests.train.test_gan import gan
from tests.train.test_trainer import Regression, Source, config
from unitone.train.certify import course, states, weights
from unitone.train.certify.setup import STEPS, SetUp, farthest, small

CHECKS = (
    *(weights.gradients, weights.decay, weights.precision),
    *(course.schedule, course.validation, states.resume, states.ema, states.average),
)


class Two(SetUp):
    def networks(self) -> Mapping[str, nn.Module]:
        return gan()

    def source(self, seed: int) -> Source:
        return Source()


class Half(Two):
    """With a part that nothing uses, and one that is frozen."""

    def networks(self) -> Mapping[str, nn.Module]:
        model = Regression()
        model.add_module("spare", nn.Linear(2, 2))
        model.blocks[0].requires_grad_(False)
        return {"model": model}


def test_several_networks_are_certified(tmp_path: Path) -> None:
    setup = Two(config=small(config()), folder=tmp_path)
    found = {check.__name__: check(setup) for check in CHECKS}
    assert {name: one.figure for name, one in found.items() if one.passed is not True} == {}
    assert found["schedule"].figure.startswith(f"wsd: {STEPS} updates in {STEPS} steps")


def test_a_weight_that_nothing_trains_is_found(tmp_path: Path) -> None:
    finding = weights.gradients(Half(config=small(config()), folder=tmp_path))
    assert finding.passed is False
    assert "4 of 6 weights got a gradient" in finding.figure
    assert "0 of 2 frozen ones moved: model.spare.bias, model.spare.weight" in finding.figure


@pytest.mark.parametrize("schedule", ["wsd", "tri-stage", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "share"), [(0, 0.2), (2, 0.05), (200, 0.5)])
def test_every_schedule_ends_with_the_run(
    schedule: str, warmup: int, share: float, tmp_path: Path
) -> None:
    own = config(schedule=schedule, warmup_steps=warmup, decay_share=share)
    setup = Two(config=small(replace(own, lr_floor=0.1)), folder=tmp_path)
    assert course.schedule(setup).passed is True


def test_names_that_differ_are_infinitely_far() -> None:
    assert farthest({}, {"a": nn.Linear(1, 1).weight.data}) == (float("inf"), "a")
