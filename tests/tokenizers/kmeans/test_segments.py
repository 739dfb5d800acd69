import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unitone.tokenizers.kmeans.kmeans import assign
from unitone.tokenizers.kmeans.segments import units_of
from unitone.tokenizers.kmeans.units import deduplicate


def speech(seed: int, *, frames: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(frames, 3, generator=draw), torch.randn(k, 3, generator=draw)


def cost(units: np.ndarray, frames: torch.Tensor, centroids: torch.Tensor, penalty: float) -> float:
    distance = (frames - centroids[torch.from_numpy(units).long()]).double().square().sum()
    return float(distance) + penalty * len(deduplicate(units)[0])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(2, 4), st.floats(0.01, 8.0))
def test_no_sequence_is_cheaper(seed: int, frames: int, k: int, penalty: float) -> None:
    rows, centroids = speech(seed, frames=frames, k=k)
    found = cost(units_of(rows, centroids, duration_penalty=penalty), rows, centroids, penalty)
    every = itertools.product(range(k), repeat=frames)
    least = min(cost(np.array(one, np.int32), rows, centroids, penalty) for one in every)
    assert found == pytest.approx(least, rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_a_dearer_change_means_fewer_runs(seed: int) -> None:
    rows, centroids = speech(seed, frames=200, k=9)
    penalties = (0.0, 0.1, 1.0, 3.0, 1e6)
    counts = [
        len(deduplicate(units_of(rows, centroids, duration_penalty=one))[0]) for one in penalties
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2] > counts[4] == 1


def test_without_a_price_it_is_the_nearest_centroid() -> None:
    rows, centroids = speech(0, frames=50, k=7)
    nearest = assign(rows, centroids).numpy()
    assert np.array_equal(units_of(rows, centroids, duration_penalty=0.0), nearest)
    # a price too small to matter leaves the nearest centroid as well, by the other way
    assert np.array_equal(units_of(rows, centroids, duration_penalty=1e-9), nearest)


def test_long_speech_goes_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, centroids = speech(1, frames=300, k=7)
    whole = units_of(rows, centroids, duration_penalty=2.0)
    monkeypatch.setattr("unitone.tokenizers.kmeans.segments._SCORES", 7 * 13)
    assert np.array_equal(units_of(rows, centroids, duration_penalty=2.0), whole)
