"""Merge clusters to fewer: the pair whose merging costs least, again and again (Ward 1963).

The cost of merging two clusters is what it adds to the sum of squared distances,
``n_a n_b / (n_a + n_b) |c_a - c_b|^2``. After a merge the costs of all other pairs follow from
those before (Lance and Williams 1967), so a step takes time in K only, whatever the width D.

Merging twice as many clusters as are wanted makes a better start for Lloyd's iterations than
drawing that many: seeds that share one dense place are joined, those alone in a wide one stay.
Axes: K clusters given, M clusters wanted, D width. Runs on the CPU; memory is 4 K^2 bytes.
"""

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor


def merged(
    sums: Float64[Tensor, "K D"], counts: Int64[Tensor, "K"], wanted: int
) -> Float32[Tensor, "M D"]:
    """Return the means of ``wanted`` clusters, or of those not empty if these are fewer.

    Args:
        sums: Sum of the frames of each cluster.
        counts: Number of frames of each.
        wanted: How many to leave.
    """
    there = counts > 0
    sums, sizes = sums[there].clone(), counts[there].double().numpy()
    costs = _costs(sums / counts[there, None], sizes)
    cheapest, partner = costs.min(axis=1, initial=np.inf), costs.argmin(axis=1)
    alive = np.ones(len(sizes), dtype=bool)
    for _ in range(len(sizes) - wanted):
        a = int(cheapest.argmin())
        b = int(partner[a])
        row = _joined(costs, sizes, a, b)
        row[~alive] = row[[a, b]] = np.inf
        costs[a] = costs[:, a] = row
        costs[b] = costs[:, b] = np.inf
        sums[a] += sums[b]
        sizes[a] += sizes[b]
        alive[b], cheapest[b] = False, np.inf
        closer = row < cheapest
        cheapest[closer], partner[closer] = row[closer], a
        stale = alive & ~closer & ((partner == a) | (partner == b))
        stale[a] = True
        for index in np.flatnonzero(stale):
            partner[index] = costs[index].argmin()
            cheapest[index] = costs[index, partner[index]]
    return (sums[alive] / torch.from_numpy(sizes[alive, None])).float()


def _costs(
    means: Float64[Tensor, "K D"], sizes: Float64[np.ndarray, "K"]
) -> Float32[np.ndarray, "K K"]:
    """Return the costs of all pairs; a cluster with itself costs infinity."""
    centered = (means - means.mean(dim=0)).float()
    norms = centered.square().sum(dim=1)
    costs = torch.addmm(norms, centered, centered.T, alpha=-2).add_(norms[:, None]).clamp_(min=0)
    counts = torch.from_numpy(sizes).float()
    costs.mul_(counts).div_(counts + counts[:, None]).mul_(counts[:, None])
    return costs.fill_diagonal_(torch.inf).numpy()


def _joined(
    costs: Float32[np.ndarray, "K K"], sizes: Float64[np.ndarray, "K"], a: int, b: int
) -> Float64[np.ndarray, "K"]:
    """Return the costs of merging the union of ``a`` and ``b`` with each other cluster."""
    total = sizes[a] + sizes[b] + sizes
    joined = (sizes[a] + sizes) * costs[a] + (sizes[b] + sizes) * costs[b] - sizes * costs[a, b]
    return np.asarray(joined / total, dtype=np.float64)
