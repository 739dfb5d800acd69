"""The parts of one Lloyd iteration of k-means, over a sample that may be larger than memory.

Frames are read in blocks, in place; sums of a block are float32, sums over blocks float64.
Axes: T frames, D width, K centroids; m chosen frames, b frames of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.nn import functional

from unitone.tokenizers.kmeans.nearest import Search

_BLOCK = 1 << 24
"""Numbers in a block of frames that is at work at a time: 64 MiB."""


@dataclass(frozen=True, kw_only=True)
class Subsample:
    """All frames, or those at ``rows``."""

    frames: Float32[np.ndarray, "all D"]
    rows: Int64[np.ndarray, "T"] | None = None

    def __len__(self) -> int:
        return len(self.frames) if self.rows is None else len(self.rows)

    def blocks(self) -> Iterator[tuple[int, Float32[Tensor, "b D"]]]:
        """Yield the frames in blocks, each with the number of frames before it."""
        size = max(1, _BLOCK // self.frames.shape[1])
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            block = self.frames[part] if self.rows is None else self.frames[self.rows[part]]
            if not block.flags.writeable:  # a read-only memory map, which torch would warn about
                block = block.copy()
            yield start, torch.from_numpy(block)

    def take(self, chosen: Int64[np.ndarray, "m"]) -> Float32[Tensor, "m D"]:
        """Return a copy of the frames with the indices ``chosen``."""
        return torch.from_numpy(self.frames[chosen if self.rows is None else self.rows[chosen]])


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """What one pass over some frames found."""

    sums: Float64[Tensor, "K D"]
    counts: Int64[Tensor, "K"]
    distances: Float32[Tensor, "T"]
    """Squared, computed from the difference, so zero exactly where frame and centroid are equal."""

    @property
    def inertia(self) -> float:
        """Mean squared distance."""
        return float(self.distances.double().mean())

    @property
    def num_empty(self) -> int:
        """Clusters without a frame."""
        return int((self.counts == 0).sum())

    @property
    def num_fillable(self) -> int:
        """Empty clusters for which there is a frame that is not a centroid yet."""
        return min(self.num_empty, int((self.distances > 0).sum()))


def assigned(sample: Subsample, centroids: Float32[Tensor, "K D"], search: Search) -> Assigned:
    """Find the nearest centroid of each frame and sum up each cluster."""
    k = len(centroids)
    here = centroids.to(search.device)
    sums = torch.zeros(centroids.shape, dtype=torch.float64)
    counts = torch.zeros(k, dtype=torch.int64)
    distances = []
    for _, block in sample.blocks():
        block = block.to(search.device)
        labels = search.labels(block, here)
        distances.append((block - here[labels]).square_().sum(dim=1).cpu())
        block_counts = torch.bincount(labels, minlength=k)
        # Sums over sorted rows: unlike index_add_, the same bits each time on a GPU too.
        order, starts = labels.argsort(stable=True), block_counts.cumsum(0) - block_counts
        sums += functional.embedding_bag(order, block, starts, mode="sum").cpu()
        counts += block_counts.cpu()
    return Assigned(sums=sums, counts=counts, distances=torch.cat(distances))


def updated(
    sample: Subsample,
    centroids: Float32[Tensor, "K D"],
    found: Assigned,
    generator: np.random.Generator,
) -> Float32[Tensor, "K D"]:
    """Return the means of the clusters; empty ones get a frame far from its centroid."""
    means = (found.sums / found.counts[:, None].clamp(min=1)).float()
    empty = (found.counts == 0).nonzero()[:, 0]
    means[empty] = centroids[empty]
    count = found.num_fillable
    if count:
        means[empty[:count]] = sample.take(_drawn(found.distances, count, generator))
    return means


def random_start(
    sample: Subsample, k: int, generator: np.random.Generator
) -> Float32[Tensor, "K D"]:
    """Draw ``k`` different frames."""
    return sample.take(generator.choice(len(sample), k, replace=False))


def spread_start(
    sample: Subsample, k: int, generator: np.random.Generator
) -> Float32[Tensor, "K D"]:
    """Draw ``k`` frames by k-means++: each in proportion to its squared distance from those before.

    Two differences. The weight is at most the mean squared distance: features have heavy tails, and
    an outlier drawn for its distance would keep a centroid to itself. And frames are drawn in
    blocks of an eighth of those there are, so that a few matrix products do what would be k passes;
    distances change little while so few are added.
    """
    centroids = new = sample.take(generator.integers(len(sample), size=1))
    distances = torch.full((len(sample),), torch.inf)
    while len(centroids) < k:
        norms = new.square().sum(dim=1)
        for start, block in sample.blocks():
            squared = torch.addmm(norms, block, new.T, alpha=-2).min(dim=1).values
            squared = (squared + block.square().sum(dim=1)).clamp_(min=0)
            part = distances[start : start + len(block)]
            torch.minimum(part, squared, out=part)
        wanted = min(k - len(centroids), max(1, len(centroids) // 8))
        new = sample.take(_drawn(distances, wanted, generator))
        centroids = torch.cat([centroids, new])
    return centroids


def _drawn(
    distances: Float32[Tensor, "T"], count: int, generator: np.random.Generator
) -> Int64[np.ndarray, "m"]:
    """Draw ``count`` indices without replacement, by squared distance (Efraimidis, Spirakis 2006).

    Those of distance zero come last.
    """
    weights = distances.clamp(max=distances.mean()).double().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        keys = generator.standard_exponential(len(weights)) / weights
    return np.argpartition(keys, count - 1)[:count]
