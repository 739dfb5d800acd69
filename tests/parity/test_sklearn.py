"""Against scikit-learn: the same Lloyd's iterations, the same units, and no worse a result."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans

from unitone.tokenizers.kmeans import kmeans
from unitone.tokenizers.kmeans.kmeans import KMeansConfig
from unitone.tokenizers.kmeans.lloyd import Subsample, assigned, updated
from unitone.tokenizers.kmeans.nearest import open_search

pytestmark = pytest.mark.parity
CPU = torch.device("cpu")


def heavy_tailed(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Overlapping clouds with outliers and dimensions of unequal scale, as SSL features have."""
    rng = np.random.default_rng(seed)
    frames = (
        rng.standard_t(4, size=(count, dim))
        + 2 * rng.standard_normal((60, dim))[rng.integers(60, size=count)]
    )
    return (frames * np.exp(0.7 * rng.standard_normal(dim))).astype(np.float32)


def test_iterations_are_scikit_learns() -> None:
    frames = heavy_tailed(2000, 20)
    start = frames[:30].copy()
    options: dict[str, Any] = {"init": start, "n_init": 1, "max_iter": 5, "tol": 0.0}
    reference: Any = KMeans(30, **options)
    reference.fit(frames)
    sample, search = Subsample(frames=frames), open_search("torch", CPU)
    centroids = torch.from_numpy(start)
    for _ in range(5):
        found = assigned(sample, centroids, search)
        centroids = updated(sample, centroids, found, np.random.default_rng(0))
    np.testing.assert_allclose(centroids.numpy(), reference.cluster_centers_, rtol=1e-4, atol=1e-4)


def test_units_are_scikit_learns_predictions() -> None:
    frames = heavy_tailed(3000, 24)
    options: dict[str, Any] = {"n_init": 1, "max_iter": 5, "random_state": 0}
    reference: Any = KMeans(40, **options).fit(frames)
    units = kmeans.assign(torch.from_numpy(frames), torch.from_numpy(reference.cluster_centers_))
    assert (units.numpy() == reference.predict(frames)).mean() > 0.999  # float32 ties


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_inertia_is_no_worse_than_mini_batches_at_fairseqs_settings(backend: str) -> None:
    frames = heavy_tailed(15_000, 40)
    options: dict[str, Any] = {
        "max_iter": 100,
        "batch_size": 10_000,
        "tol": 0.0,
        "max_no_improvement": 100,
        "n_init": 20,
        "reassignment_ratio": 0.0,
        "random_state": 0,
    }
    reference: Any = MiniBatchKMeans(100, compute_labels=False, **options).fit(frames)
    config = KMeansConfig(k=100, backend=backend)  # type: ignore[arg-type]
    ours = kmeans.train(frames, config, device=CPU)
    assert ours.inertia <= kmeans.inertia(frames, reference.cluster_centers_)
