"""Which centroid is nearest: exactly, for units, and fast, inside the training of k-means.

The nearest centroid is the argmin of ``|c|^2 - 2 x.c`` in float32, one matrix product. Rounding
differs with the number of rows, the processor and the library, so two centroids almost equally
near could swap places. ``exact`` therefore looks again, in float64, at the frames where that could
be: a unit depends on the frame alone, not on its batch, its chunk or the machine.

Axes: T frames, D width, K centroids.
"""

import abc
import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from unitone.errors import ConfigError

Backend = Literal["auto", "faiss", "torch"]

_SCORES = {"cpu": 1 << 22}
"""Scores held at once, by device: 16 MiB stay in the cache of a CPU."""
_SCORES_ELSEWHERE = 1 << 27
"""Half a GiB on a GPU."""
_ROUNDING = 32 * torch.finfo(torch.float32).eps
"""Bound on the error of a score, relative to |x| max|c|. Measured: below 6 eps for D up to 4096."""


class Search(abc.ABC):
    """Finds nearest centroids in float32; near ties go either way."""

    name: str
    """``faiss``, ``faiss-gpu`` or ``torch``."""
    device: torch.device
    """Where centroids and frames have to be."""

    @abc.abstractmethod
    def labels(
        self, frames: Float32[Tensor, "T D"], centroids: Float32[Tensor, "K D"]
    ) -> Int64[Tensor, "T"]:
        """Return the index of the nearest centroid of each frame."""


def open_search(backend: Backend, device: torch.device) -> Search:
    """Return the search that ``backend`` names; ``auto`` is FAISS wherever it can use ``device``.

    some of the operations are missing on Apple's GPU; there k-means trains on the CPU.

    Raises:
        ConfigError: FAISS is asked for on a device that it can't use.
    """
    if device.type == "mps":
        device = torch.device("cpu")
    if backend == "torch":
        return _TorchSearch(device)
    import faiss

    if device.type == "cpu":
        return _FaissSearch()
    if device.type == "cuda" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        return _FaissGpuSearch(device)
    if backend == "auto":
        return _TorchSearch(device)
    raise ConfigError(
        f"this FAISS cannot use {device}; give --device cpu, the torch backend, or install FAISS "
        "for GPUs: pip install 'unitone[gpu]'"
    )


def exact(features: Float[Tensor, "T D"], centroids: Float[Tensor, "K D"]) -> Int64[Tensor, "T"]:
    """Return the index of the nearest centroid by float64 distance; ties go to the lowest index."""
    centroids = centroids.float()
    norms = centroids.square().sum(dim=1)
    largest = norms.max().sqrt()
    labels = [
        _exact_rows(rows, centroids, norms=norms, largest=largest)
        for rows in features.float().split(_rows(features.device, len(centroids)))
    ]
    return torch.cat(labels)


def _exact_rows(
    rows: Float32[Tensor, "T D"],
    centroids: Float32[Tensor, "K D"],
    *,
    norms: Float32[Tensor, "K"],
    largest: Float32[Tensor, ""],
) -> Int64[Tensor, "T"]:
    scores = torch.addmm(norms, rows, centroids.T, alpha=-2)  # (T, K): |x - c|^2 - |x|^2
    best, labels = scores.min(dim=1)
    error = _ROUNDING * largest * (rows.norm(dim=1) + largest)
    candidates = scores <= (best + 2 * error)[:, None]
    unsure = (candidates.sum(dim=1) > 1).nonzero()[:, 0]
    if len(unsure):
        labels[unsure] = _settle(rows[unsure], centroids, candidates[unsure]).to(labels.device)
    return labels


def _settle(
    rows: Float32[Tensor, "T D"], centroids: Float32[Tensor, "K D"], candidates: Tensor
) -> Int64[Tensor, "T"]:
    """Choose among the candidates of each row by float64 distance, on the CPU: MPS has no float64.

    A row is at work at a time where all centroids are candidates, so memory stays small.
    """
    rows, centroids, candidates = rows.cpu(), centroids.cpu(), candidates.cpu()
    labels = torch.empty(len(rows), dtype=torch.int64)
    for index in range(len(rows)):
        near = candidates[index].nonzero()[:, 0]
        distances = (centroids[near].double() - rows[index].double()).square().sum(dim=1)
        labels[index] = near[distances == distances.min()][0]
    return labels


def _rows(device: torch.device, k: int) -> int:
    return max(1, _SCORES.get(device.type, _SCORES_ELSEWHERE) // k)


class _TorchSearch(Search):
    name = "torch"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def labels(
        self, frames: Float32[Tensor, "T D"], centroids: Float32[Tensor, "K D"]
    ) -> Int64[Tensor, "T"]:
        norms = centroids.square().sum(dim=1)
        return torch.cat(
            [
                torch.addmm(norms, rows, centroids.T, alpha=-2).min(dim=1).indices
                for rows in frames.split(_rows(self.device, len(centroids)))
            ]
        )


class _FaissSearch(Search):
    name = "faiss"
    device = torch.device("cpu")

    def labels(
        self, frames: Float32[Tensor, "T D"], centroids: Float32[Tensor, "K D"]
    ) -> Int64[Tensor, "T"]:
        import faiss

        index = faiss.IndexFlatL2(centroids.shape[1])
        index.add(centroids.numpy())
        with _threads_of_torch(faiss):
            _, labels = index.search(frames.numpy(), 1)
        return torch.from_numpy(labels[:, 0])


class _FaissGpuSearch(Search):
    name = "faiss-gpu"

    def __init__(self, device: torch.device) -> None:
        import faiss

        self.device = device
        self._resources = faiss.StandardGpuResources()

    def labels(
        self, frames: Float32[Tensor, "T D"], centroids: Float32[Tensor, "K D"]
    ) -> Int64[Tensor, "T"]:
        import faiss

        config = faiss.GpuIndexFlatConfig()
        config.device = self.device.index or 0
        index = faiss.GpuIndexFlatL2(self._resources, centroids.shape[1], config)
        index.add(centroids.cpu().numpy())
        _, labels = index.search(frames.cpu().numpy(), 1)
        return torch.from_numpy(labels[:, 0]).to(self.device)


@contextlib.contextmanager
def _threads_of_torch(faiss: Any) -> Iterator[None]:
    """Let FAISS, which has threads of its own, use as many as torch was told to use."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
