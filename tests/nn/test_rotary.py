"""How fast pairs turn: cases worked out by hand, and what holds for any scaling."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import ConfigError
from unitone.nn.rotary import RopeScaling, frequencies

CPU = torch.device("cpu")


def turns(scaling: RopeScaling | None) -> list[float]:
    return frequencies(8, theta=10_000.0, scaling=scaling, device=CPU).tolist()


def test_plain_and_linear() -> None:
    assert turns(None) == pytest.approx([1, 0.1, 0.01, 0.001])
    linear = RopeScaling(kind="linear", factor=4.0)
    assert turns(linear) == pytest.approx([0.25, 0.025, 0.0025, 0.00025])


def test_llama3_slows_down_what_turns_seldom() -> None:
    """Within 1000 positions the pairs turn 159, 15.9, 1.59 and 0.159 times."""
    scaling = RopeScaling(kind="llama3", factor=8.0, original_context=1000)
    share = (1000 * 0.01 / (2 * math.pi) - 1) / (4 - 1)
    between = 0.01 * share + 0.01 / 8 * (1 - share)
    assert turns(scaling) == pytest.approx([1, 0.1, between, 0.001 / 8])
    assert turns(scaling)[:2] == turns(None)[:2]


@given(
    factor=st.floats(1, 64),
    low=st.floats(0.5, 4),
    gap=st.floats(0.1, 8),
    context=st.integers(1, 100_000),
)
def test_llama3_is_between_plain_and_linear(
    factor: float, low: float, gap: float, context: int
) -> None:
    found = frequencies(
        64,
        theta=500_000.0,
        scaling=RopeScaling(
            kind="llama3",
            factor=factor,
            low_freq_factor=low,
            high_freq_factor=low + gap,
            original_context=context,
        ),
        device=CPU,
    )
    plain = frequencies(64, theta=500_000.0, scaling=None, device=CPU)
    assert (found <= plain * (1 + 1e-6)).all()
    assert (found >= plain / factor * (1 - 1e-6)).all()
    assert (found.diff() < 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor": 0.5}, "factor of the rope scaling must be at least 1, got 0.5"),
        ({"factor": math.nan}, "must be at least 1, got nan"),
        ({"low_freq_factor": 4.0}, "low_freq_factor 4 must be less than high_freq_factor 4"),
        ({"original_context": 0}, "original_context must be at least 1, got 0"),
    ],
)
def test_scalings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(RopeScaling(kind="llama3", factor=8.0), **changes)
