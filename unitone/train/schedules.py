"""Learning-rate schedules, as functions of how much of the run is done.

wsd: warm-up, stable, linear decay (Hu et al. 2024, MiniCPM, arXiv 2404.06395).
tri-stage: warm-up, hold, exponential decay (Park et al. 2019, SpecAugment, arXiv 1904.08779).
cosine: warm-up, half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983).
constant: warm-up only.
"""

import math
from typing import Literal

Schedule = Literal["wsd", "tri-stage", "cosine", "constant"]


def lr_factor(
    schedule: Schedule, *, progress: float, warmup: float, decay_share: float, floor: float
) -> float:
    """Return what the peak learning rate is multiplied by.

    Args:
        schedule: its name.
        progress: share of the run that is done, 0..1; more counts as 1.
        warmup: share of the warm-up that is done; more than 1 counts as 1.
        decay_share: share of the run that wsd and tri-stage spend decaying.
        floor: the factor at the end of the run.
    """
    progress = min(progress, 1.0)
    return min(warmup, 1.0) * _decay(
        schedule, progress=progress, decay_share=decay_share, floor=floor
    )


def _decay(schedule: Schedule, *, progress: float, decay_share: float, floor: float) -> float:
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
    start = 1 - decay_share
    if progress <= start:
        return 1.0
    decayed = (progress - start) / decay_share
    if schedule == "wsd":
        return 1 - (1 - floor) * decayed
    return math.exp(decayed * math.log(floor))
