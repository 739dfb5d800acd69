"""Training finds the clusters that are there, exactly repeatably; units do not depend on chunks."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float32
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.tokenizers.kmeans import kmeans
from unitone.tokenizers.kmeans.kmeans import KMeansConfig, KMeansResult

CPU = torch.device("cpu")
Frames = Float32[np.ndarray, "T D"]


def clouds(num: int, *, per_cloud: int = 50, dim: int = 6, seed: int = 0) -> tuple[Frames, Frames]:
    """Frames around ``num`` far-apart points, shuffled, and the points."""
    rng = np.random.default_rng(seed)
    points = 20 * rng.standard_normal((num, dim)).astype(np.float32)
    frames = np.repeat(points, per_cloud, axis=0)
    frames += 0.1 * rng.standard_normal(frames.shape).astype(np.float32)
    return rng.permutation(frames), points


def noise(count: int, dim: int, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def trained(frames: Frames, **options: Any) -> KMeansResult:
    return kmeans.train(frames, KMeansConfig(**options), device=CPU)


def brute_force(frames: Frames, centroids: Frames) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and squared distances in float64."""
    squared = ((frames[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=2)
    return squared.argmin(axis=1), squared.min(axis=1)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_finds_separate_clusters(backend: str) -> None:
    frames, points = clouds(8, per_cloud=200)
    result = trained(frames, k=8, backend=backend, redo=4)
    labels, distances = brute_force(points, result.centroids)
    assert sorted(labels) == list(range(8))
    assert distances.max() < 0.01
    assert result.inertia < 0.1
    assert result.backend == backend


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_reported_inertia_is_that_of_the_returned_centroids_on_all_frames(backend: str) -> None:
    frames = noise(3000, 9)
    result = trained(frames, k=17, backend=backend)
    _, distances = brute_force(frames, result.centroids)
    assert result.inertia == pytest.approx(distances.mean(), rel=1e-5)
    assert result.inertia == result.history[-1]
    assert kmeans.inertia(frames, result.centroids) == pytest.approx(result.inertia, rel=1e-6)


def test_iterations_on_all_frames_never_raise_the_inertia() -> None:
    frames = noise(600, 4)  # fewer than two subsamples' worth: every iteration is on all of them
    history = trained(frames, k=20, tolerance=0.0, iterations=15).history
    assert 2 < len(history) <= 16
    assert all(later <= earlier for earlier, later in itertools.pairwise(history))


def test_is_no_worse_than_a_plain_start_from_random_frames() -> None:
    frames, _ = clouds(40, per_cloud=100)
    ours = trained(frames, k=40, seed=1)
    plain = trained(frames, k=40, seed=1, init="random")
    assert ours.inertia <= plain.inertia


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_same_seed_same_bytes(backend: str) -> None:
    frames = noise(3000, 24)
    first, again = (trained(frames, k=20, seed=3, backend=backend) for _ in range(2))
    other = trained(frames, k=20, seed=4, backend=backend)
    assert first.centroids.tobytes() == again.centroids.tobytes()
    assert first.history == again.history
    assert not np.array_equal(first.centroids, other.centroids)


def test_backends_agree() -> None:
    frames, _ = clouds(12, per_cloud=100)
    rows = [
        sorted(map(tuple, trained(frames, k=12, backend=backend).centroids))
        for backend in ("faiss", "torch")
    ]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5, atol=1e-5)


def test_redo_keeps_the_lowest_inertia() -> None:
    frames, _ = clouds(30, per_cloud=20)
    options = {"k": 30, "init": "random", "iterations": 3}
    assert trained(frames, redo=6, **options).inertia <= trained(frames, **options).inertia


@given(
    values=st.lists(st.integers(0, 8), min_size=1, max_size=60),
    k=st.integers(1, 9),
    init=st.sampled_from(["k-means++", "random"]),
    seed=st.integers(0, 5),
)
def test_no_cluster_is_empty_where_enough_frames_differ(
    values: list[int], k: int, init: str, seed: int
) -> None:
    if len(values) < k:
        return
    frames = np.array(values, dtype=np.float32)[:, None] * np.ones((1, 2), dtype=np.float32)
    result = trained(frames, k=k, init=init, seed=seed)
    used = set(kmeans.assign(torch.from_numpy(frames), torch.from_numpy(result.centroids)).tolist())
    distinct = len(set(values))
    assert len(used) >= min(k, distinct)
    assert result.empty == max(0, k - distinct) == k - len(used)
    if distinct <= k:
        assert result.inertia == 0


def test_empty_clusters_are_counted_and_filled() -> None:
    frames = np.repeat(np.arange(10, dtype=np.float32), 100)[:, None]  # a random start repeats
    result = trained(frames, k=10, init="random")
    assert result.repaired > 0
    assert sorted(result.centroids[:, 0]) == list(range(10))


def test_fewer_different_frames_than_clusters_is_said(caplog: pytest.LogCaptureFixture) -> None:
    result = trained(np.ones((50, 3), dtype=np.float32), k=4)
    assert result.empty == 3
    assert "3 of 4 clusters are empty" in caplog.text


def test_every_frame_counts_in_the_end() -> None:
    # One frame in two thousand lies far out: no subsample holds all four.
    frames = noise(8000, 2)
    frames[::2000] += 1000
    result = trained(frames, k=3, tolerance=1e-7, iterations=30)
    assert np.abs(result.centroids - frames[::2000].mean(axis=0)).sum(axis=1).min() < 0.01


def test_a_read_only_memory_map_is_enough(tmp_path: Path) -> None:
    frames = noise(3000, 8)
    np.save(tmp_path / "frames.npy", frames)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    assert np.array_equal(trained(mapped, k=10).centroids, trained(frames, k=10).centroids)


def test_frames_that_cannot_be_used_are_named() -> None:
    with pytest.raises(ConfigError, match=r"k = 2000 needs at least 2000 frames, .* has 312"):
        trained(noise(312, 4), k=2000)
    broken = noise(50, 4)
    broken[17, 2] = np.inf
    with pytest.raises(CorpusError, match="frame 17 of the k-means sample"):
        trained(broken, k=2)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 2, "redo": 0}, {"k": 2, "tolerance": 1.0}])
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        KMeansConfig(**options)


def test_faiss_is_asked_of_no_device_it_cannot_use() -> None:
    with pytest.raises(ConfigError, match="cannot use"):
        kmeans.train(noise(10, 2), KMeansConfig(k=2, backend="faiss"), device=torch.device("meta"))


@given(
    count=st.integers(0, 40), k=st.integers(1, 20), dim=st.integers(1, 9), seed=st.integers(0, 99)
)
def test_assign_is_the_nearest_centroid(count: int, k: int, dim: int, seed: int) -> None:
    frames, centroids = noise(count, dim, seed), noise(k, dim, seed + 100)
    units = kmeans.assign(torch.from_numpy(frames), torch.from_numpy(centroids))
    assert units.dtype == torch.int64
    assert units.tolist() == brute_force(frames, centroids)[0].tolist()


@given(data=st.data(), seed=st.integers(0, 99))
def test_assign_is_the_same_for_any_chunking(data: st.DataObject, seed: int) -> None:
    """Also where float32 cannot tell the centroids apart: pairs that differ in the last bits."""
    centroids = 100 * noise(40, 48, seed)
    centroids[20:] = np.nextafter(centroids[:20], np.float32(np.inf))
    frames = torch.from_numpy(centroids[np.arange(60) % 40] + noise(60, 48, seed + 1))
    table = torch.from_numpy(centroids)
    cuts = sorted(data.draw(st.lists(st.integers(0, 60), max_size=5)))
    whole = kmeans.assign(frames, table)
    parts = [kmeans.assign(part, table) for part in frames.tensor_split(cuts)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.tolist() == brute_force(frames.numpy(), centroids)[0].tolist()


def test_ties_go_to_the_lowest_index() -> None:
    row = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    centroids = torch.cat([row + 1, row, row, row])
    assert kmeans.assign(row.expand(5, 16), centroids).tolist() == [1] * 5


def test_assign_takes_half_precision_features() -> None:
    frames, centroids = torch.from_numpy(noise(30, 8)), torch.from_numpy(noise(5, 8, 1))
    expected = brute_force(frames.bfloat16().float().numpy(), centroids.numpy())[0]
    assert kmeans.assign(frames.bfloat16(), centroids).tolist() == expected.tolist()


def test_save_and_load_keep_every_bit(tmp_path: Path) -> None:
    centroids = noise(7, 5)
    path = tmp_path / "kmeans.safetensors"
    kmeans.save(path, centroids)
    assert np.array_equal(kmeans.load(path), centroids)
    assert np.array_equal(load_file(path)["centroids"], centroids)


def test_the_hash_is_of_the_numbers_and_their_shape() -> None:
    centroids = noise(6, 4)
    assert kmeans.centroid_hash(centroids) == kmeans.centroid_hash(np.asfortranarray(centroids))
    assert kmeans.centroid_hash(centroids) != kmeans.centroid_hash(centroids.reshape(4, 6))
    assert kmeans.centroid_hash(centroids) != kmeans.centroid_hash(centroids[::-1])


def test_damaged_centroids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "kmeans.safetensors"
    with pytest.raises(CheckpointError, match=r"kmeans\.safetensors"):
        kmeans.load(path)
    kmeans.save(path, noise(7, 5))
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="do not match the hash"):
        kmeans.load(path)
    path.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="cannot read"):
        kmeans.load(path)
    save_file({"centroids": noise(7, 5)}, path)
    with pytest.raises(CheckpointError, match="--centroids"):
        kmeans.load(path)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_gpu_finds_what_the_cpu_finds(backend: str) -> None:
    frames, _ = clouds(12, per_cloud=100)
    config = KMeansConfig(k=12, backend=backend)  # type: ignore[arg-type]
    first, again = (kmeans.train(frames, config, device=torch.device("cuda")) for _ in range(2))
    assert first.centroids.tobytes() == again.centroids.tobytes()
    here = trained(frames, k=12, backend="torch")
    assert first.inertia == pytest.approx(here.inertia, rel=1e-4)
    units = kmeans.assign(torch.from_numpy(frames).cuda(), torch.from_numpy(first.centroids).cuda())
    expected = kmeans.assign(torch.from_numpy(frames), torch.from_numpy(first.centroids))
    assert torch.equal(units.cpu(), expected)
