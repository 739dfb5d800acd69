"""Foreign k-means files are read exactly, and nothing in them is ever run."""

import contextlib
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import joblib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from unitone.errors import CheckpointError
from unitone.tokenizers.kmeans.centroids import read_centroids

CENTROIDS = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)


def model(centroids: NDArray[Any]) -> Any:
    """A scikit-learn MiniBatchKMeans as fairseq, GSLM and ESPnet pickle it."""
    cluster = pytest.importorskip("sklearn.cluster")
    fitted = cluster.MiniBatchKMeans(
        n_clusters=len(centroids), batch_size=10, n_init=1, compute_labels=False, random_state=0
    )
    frames = np.random.default_rng(1).standard_normal((60, centroids.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(frames.astype(centroids.dtype))
    fitted.cluster_centers_ = centroids
    return fitted


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_joblib_model(tmp_path: Path, protocol: int, dtype: type) -> None:
    path = tmp_path / "km.bin"
    joblib.dump(model(CENTROIDS.astype(dtype)), path, protocol=protocol)
    assert np.array_equal(read_centroids(path), CENTROIDS)


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_compressed_joblib_model(tmp_path: Path, compress: Any) -> None:
    path = tmp_path / "km.mdl"
    joblib.dump(model(CENTROIDS), path, compress=compress)
    assert np.array_equal(read_centroids(path), CENTROIDS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickle_of_a_model(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "km.pkl"
    path.write_bytes(pickle.dumps(model(CENTROIDS), protocol=protocol))
    assert np.array_equal(read_centroids(path), CENTROIDS)


def test_column_major_and_big_endian_arrays(tmp_path: Path) -> None:
    path = tmp_path / "km.bin"
    for array in (np.asfortranarray(CENTROIDS), CENTROIDS.astype(">f4"), CENTROIDS[::-1][::-1]):
        for dump in (joblib.dump, lambda value, to: to.write_bytes(pickle.dumps(value))):
            dump(model(array), path)
            assert np.array_equal(read_centroids(path), CENTROIDS)


def test_wrapper_without_alignment_bytes_as_older_joblib_wrote_it(tmp_path: Path) -> None:
    from joblib.numpy_pickle import NumpyArrayWrapper

    wrapper = NumpyArrayWrapper(np.ndarray, (7, 5), "C", np.dtype(np.float32))
    del wrapper.numpy_array_alignment_bytes
    head = pickle.dumps(wrapper, protocol=3)  # ends in STOP, which belongs after the bytes
    path = tmp_path / "km.bin"
    path.write_bytes(head[:-1] + CENTROIDS.tobytes() + b".")
    assert np.array_equal(read_centroids(path), CENTROIDS)


@pytest.mark.parametrize("index", [faiss.IndexFlatL2, faiss.IndexFlatIP])
def test_faiss_index(tmp_path: Path, index: Callable[[int], Any]) -> None:
    flat = index(5)
    flat.add(CENTROIDS)
    faiss.write_index(flat, str(tmp_path / "km.faiss"))
    assert np.array_equal(read_centroids(tmp_path / "km.faiss"), CENTROIDS)


@pytest.mark.parametrize("kind", ["IVF2,Flat", "PQ1x1np", "HNSW4"])
def test_a_faiss_index_that_is_not_flat_is_named(tmp_path: Path, kind: str) -> None:
    index = faiss.index_factory(CENTROIDS.shape[1], kind)
    with contextlib.suppress(RuntimeError):  # too few vectors: an untrained one does as well
        index.train(CENTROIDS)
    faiss.write_index(index, str(tmp_path / "km.faiss"))
    with pytest.raises(CheckpointError, match="not a flat index"):
        read_centroids(tmp_path / "km.faiss")


def test_numpy_safetensors_and_torch_files(tmp_path: Path) -> None:
    tensor = torch.from_numpy(CENTROIDS)
    np.save(tmp_path / "a.npy", CENTROIDS)
    save_file({"centroids": CENTROIDS}, tmp_path / "b.safetensors")
    torch.save(tensor, tmp_path / "c.pt")
    torch.save({"cluster_centers": tensor, "counts": torch.ones(7)}, tmp_path / "d.pt")
    torch.save(tensor, tmp_path / "e.pt", _use_new_zipfile_serialization=False)
    torch.save(tensor.double(), tmp_path / "f.bin")
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(read_centroids(path), CENTROIDS), path.name


class Hostile:
    """Its pickle runs a shell command in any ordinary reader."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("write", ["joblib", "pickle", "torch"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, write: str) -> None:
    trace = tmp_path / "trace"
    value = {"centroids": Hostile(f"touch {trace}")}
    path = tmp_path / "km.bin"
    if write == "joblib":
        joblib.dump(value, path)
    elif write == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path)

    with pytest.raises(CheckpointError, match=r"km\.bin"):
        read_centroids(path)

    assert not trace.exists()


def test_a_hostile_payload_beside_good_centroids_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    fitted = model(CENTROIDS)
    fitted.extra_ = Hostile(f"touch {trace}")
    joblib.dump(fitted, tmp_path / "km.bin")
    assert np.array_equal(read_centroids(tmp_path / "km.bin"), CENTROIDS)
    assert not trace.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'touch trace'\ntR.",
        b'c__builtin__\neval\n(S\'open("trace", "w")\'\ntR.',
        b"(S'touch trace'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch trace'\no.",
        b"cbuiltins\nsetattr\n(cos\nsystem\nS'x'\nNtR.",
        b"Pevil\n.",
        b"cos\nsystem\n}b.",
    ],
)
def test_hostile_opcodes_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("km.bin").write_bytes(program)
    with pytest.raises(CheckpointError):
        read_centroids(Path("km.bin"))
    assert [path.name for path in tmp_path.iterdir()] == ["km.bin"]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    joblib.dump(model(CENTROIDS), tmp_path / "whole.bin")
    whole = (tmp_path / "whole.bin").read_bytes()
    path = tmp_path / "km.bin"
    for damaged in (
        b"",
        b"not a model",
        whole[:300],
        whole[: len(whole) // 2],
        b"IxF2\x05",
        b"x\x9c",
    ):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"cannot read k-means centroids from .*km\.bin"):
            read_centroids(path)
    with pytest.raises(CheckpointError, match="absent"):
        read_centroids(tmp_path / "absent.bin")


def test_an_array_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    from joblib.numpy_pickle import NumpyArrayWrapper

    wrapper = NumpyArrayWrapper(np.ndarray, (1 << 40, 5), "C", np.dtype(np.float32))
    (tmp_path / "km.bin").write_bytes(pickle.dumps(wrapper))
    with pytest.raises(CheckpointError, match="cut short"):
        read_centroids(tmp_path / "km.bin")


def test_centroids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "km.npy"
    broken = CENTROIDS.copy()
    broken[4, 2] = np.nan
    np.save(path, broken)
    with pytest.raises(CheckpointError, match=r"centroid 4 in .* is NaN"):
        read_centroids(path)
    np.save(path, CENTROIDS[0])
    with pytest.raises(CheckpointError, match=r"shape \(5,\)"):
        read_centroids(path)
