"""Merging takes the cheapest pair at every step, as a plain search over all pairs would."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.tokenizers.kmeans.ward import merged


def plain(means: np.ndarray, sizes: np.ndarray, wanted: int) -> np.ndarray:
    clusters = [(float(size), mean) for size, mean in zip(sizes, means, strict=True) if size]
    while len(clusters) > wanted:
        costs = {
            (a, b): n * m / (n + m) * float(((x - y) ** 2).sum())
            for a, (n, x) in enumerate(clusters)
            for b, (m, y) in enumerate(clusters[:a])
        }
        a, b = min(costs, key=lambda pair: costs[pair])
        (n, x), (m, y) = clusters.pop(a), clusters.pop(b)
        clusters.append((n + m, (n * x + m * y) / (n + m)))
    return np.array(sorted(tuple(mean) for _, mean in clusters))


@given(count=st.integers(1, 14), wanted=st.integers(1, 14), seed=st.integers(0, 999))
def test_merges_what_a_plain_search_merges(count: int, wanted: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 9, count)
    sizes[0] = 3
    means = rng.standard_normal((count, 3)) + 5
    sums = torch.from_numpy(means * sizes[:, None])

    left = merged(sums, torch.from_numpy(sizes), wanted)

    expected = plain(means, sizes, wanted)
    assert left.shape == expected.shape
    np.testing.assert_allclose(sorted(map(tuple, left.numpy())), expected, rtol=1e-4, atol=1e-5)


def test_given_sums_are_left_alone() -> None:
    sums = torch.arange(8, dtype=torch.float64).reshape(4, 2)
    before = sums.clone()
    merged(sums, torch.tensor([1, 2, 1, 4]), 2)
    assert torch.equal(sums, before)
