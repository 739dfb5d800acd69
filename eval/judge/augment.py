"""Features of the same words from another voice, for the training of the ASR judge.

A voice differs from another by the length of its vocal tract, its tempo, its timbre, its noise. So
every time an utterance is used, its frequency axis is stretched (VTLP, Jaitly and Hinton 2013), its
time axis too, here more and there less, noise fills its valleys to a random height, and bands and
stretches of time are blanked out (SpecAugment, Park et al. 2019, arXiv 1904.08779).

Axes: T frames of 10 ms, M mel bands.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

KNOT = 10
"""Frames between two draws of the tempo."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    vtlp: float = 0.1
    """Vocal tract length perturbation: the frequency axis is stretched by up to this share, either
    way."""
    tempo: float = 0.1
    """The same of the time axis."""
    rhythm: float = 0.2
    """Deviation of the logarithm of the tempo inside an utterance, drawn anew every 100 ms: what is
    judged may have been timed by a model."""
    noise: float = 3.0
    """Nepers of power between the loudest and the highest noise; the lowest is below `RANGE`."""
    bands: int = 4
    """Widest of the two stretches of bands that are blanked out."""
    frames: int = 8
    """Longest of the two stretches of time that are blanked out."""


def augmented(
    features: Float32[np.ndarray, "T M"], config: AugmentConfig, stream: np.random.Generator
) -> Float32[np.ndarray, "_ M"]:
    """Return the features of the same words from another voice, normalized, with holes."""
    from unitone.eval.judge.model import RANGE, normalized

    tempo = 1 + stream.uniform(-config.tempo, config.tempo)
    stretch = 1 + stream.uniform(-config.vtlp, config.vtlp)
    count, bands = features.shape
    times = _times(count, max(round(count * tempo), 1), rhythm=config.rhythm, stream=stream)
    places = np.arange(bands) * stretch
    warped = _between(_between(features, times).T, places.clip(0, bands - 1)).T
    loudest = float(warped.max())
    noise = loudest - stream.uniform(config.noise, RANGE)
    slope = stream.normal(0, 1) * np.linspace(-1, 1, bands)
    filled = np.logaddexp(warped, noise + slope + stream.normal(0, 0.5, warped.shape))
    changed = normalized(filled.astype(np.float32))
    for _ in range(2):
        width, first = stream.integers(config.bands + 1), stream.integers(bands)
        changed[:, first : first + width] = 0
        width, first = stream.integers(config.frames + 1), stream.integers(len(changed))
        changed[first : first + width] = 0
    return changed


def _times(
    count: int, wanted: int, *, rhythm: float, stream: np.random.Generator
) -> Float[np.ndarray, "_"]:
    """Return ``wanted`` rising places from 0 to ``count`` - 1, at a tempo that comes and goes."""
    knots = stream.normal(0, rhythm, wanted // KNOT + 2)
    steps = np.exp(np.interp(np.arange(wanted) / KNOT, np.arange(len(knots)), knots))
    places = steps.cumsum() - steps[0]
    found: np.ndarray = places * ((count - 1) / (places[-1] or 1.0))
    return found


def _between(rows: Float32[np.ndarray, "A B"], places: np.ndarray) -> np.ndarray:
    """Return rows at fractional places, linearly interpolated."""
    below = np.minimum(places.astype(np.int64), len(rows) - 1)
    above = np.minimum(below + 1, len(rows) - 1)
    share = (places - below).astype(np.float32)[:, None]
    found: np.ndarray = rows[below] * (1 - share) + rows[above] * share
    return found
