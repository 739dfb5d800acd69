"""Duration-penalized units: a change of unit has its price, so flicker between centroids goes.

Plain k-means takes the nearest centroid of every frame by itself. Here the whole sequence is chosen
at once, the one with the least

    sum over frames |x_t - c_{z_t}|^2  +  penalty * (number of runs)

by dynamic programming: Kamper and van Niekerk 2021, arXiv 2012.07551, §3.2, whose segment cost
``penalty * (1 - frames)`` sums to the same up to a constant. Runs get fewer and closer to phones.

Axes: T frames, D width, K centroids.
"""

import numpy as np
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from unitone.tokenizers.kmeans.kmeans import assign

_SCORES = 1 << 20
"""Distances held at once, 8 MiB."""


def units_of(
    features: Float[Tensor, "T D"], centroids: Float[Tensor, "K D"], *, duration_penalty: float
) -> Int32[np.ndarray, "T"]:
    """Return the unit of each frame; without a penalty, its nearest centroid.

    With one, the frames are a sequence: the result depends on all of them, and memory is a byte
    for each of the T K pairs. Distances are float64, so machines agree.

    Args:
        features: frames of one stretch of speech, in order.
        centroids: on the same device.
        duration_penalty: price of a change of unit, a squared distance; 0 or more.
    """
    if duration_penalty == 0:
        return assign(features, centroids).cpu().numpy().astype(np.int32)
    return _cheapest(features.cpu().double(), centroids.cpu().double(), duration_penalty)


def _cheapest(
    rows: Float[Tensor, "T D"], centroids: Float[Tensor, "K D"], penalty: float
) -> Int32[np.ndarray, "T"]:
    """Viterbi: forward the cost of each unit at each frame, backward the choices.

    The products are PyTorch's: numpy's threads and those of the encoder before it would keep each
    other from the cores (measured on two, Whisper tiny.en on half-second words: 9 against 36 times
    real time).
    """
    came_from = np.empty(len(rows), np.int32)  # the unit to come from where one is entered
    entered = np.empty((len(rows), len(centroids)), np.bool_)
    norms = np.square(centroids.numpy()).sum(axis=1)
    cost = np.zeros(len(centroids))
    block = max(1, _SCORES // len(centroids))
    for first in range(0, len(rows), block):
        # without |x|^2, which is the same for all units
        distances = norms - 2 * (rows[first : first + block] @ centroids.T).numpy()
        for frame, distance in enumerate(distances, start=first):
            best = cost.argmin()
            came_from[frame] = best
            cost -= cost[best]  # so that sums stay small
            np.greater(cost, penalty, out=entered[frame])
            np.minimum(cost, penalty, out=cost)
            cost += distance
    return _backward(int(cost.argmin()), came_from, entered)


def _backward(
    unit: int, came_from: Int32[np.ndarray, "T"], entered: Bool[np.ndarray, "T K"]
) -> Int32[np.ndarray, "T"]:
    units = np.empty(len(came_from), np.int32)
    for frame in range(len(units) - 1, -1, -1):
        units[frame] = unit
        if entered[frame, unit]:
            unit = int(came_from[frame])
    return units
