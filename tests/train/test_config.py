"""The settings of a training: the learning rate they give, and values that can't be."""

from dataclasses import replace

import pytest

from unitone.train.config import TrainConfig

LONG = TrainConfig(steps=20_000, lr=1.0, schedule="constant", warmup_steps=200)


@pytest.mark.parametrize("step", [0, 7, 199, 5000])
def test_a_run_limited_by_steps_warms_up_over_its_warmup_steps(step: int) -> None:
    optim = LONG.optimization
    assert optim.lr_at(step=step, progress=step / 20_000) == min((step + 1) / 200, 1.0)


def test_a_short_run_limited_by_time_warms_up_in_a_tenth_of_it() -> None:
    optim = replace(LONG, max_seconds=220.0).optimization
    assert optim.lr_at(step=3, progress=0.05, time=0.05) == 0.5
    assert optim.lr_at(step=7, progress=0.1, time=0.1) == 1.0  # 66 steps are all that it does


def test_a_long_run_limited_by_time_warms_up_over_its_warmup_steps() -> None:
    optim = replace(LONG, max_seconds=1e6).optimization
    assert optim.lr_at(step=99, progress=0.005, time=1e-4) == 0.5
