"""Triangular mel filters, one bank for features, losses and the judge.

Two scales are in use. ``htk``: 2595 log10(1 + f / 700), which HTK and Kaldi take.
``slaney``: linear to 1 kHz, which is 15 mel, then 27 steps a factor of 6.4 (Slaney 1998, Auditory
Toolbox), which librosa and HiFi-GAN take. The triangles' feet and peaks are equally far apart on
the scale; their flanks are straight in hertz or, as Kaldi has them, in mel.

Axes: F bins, M mel bands.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float64

Scale = Literal["htk", "slaney"]


def mel_filters(
    *,
    fft: int,
    num_mels: int,
    sample_rate: int,
    scale: Scale,
    low: float = 0.0,
    flanks: Literal["hertz", "mel"] = "hertz",
    equal_area: bool = False,
) -> Float64[np.ndarray, "F M"]:
    """Return triangles from ``low`` to Nyquist, both in Hz, of height 1 or of area 1 (in Hz)."""
    first, last = _to_mel(low, scale), _to_mel(sample_rate / 2, scale)
    edges = np.linspace(first, last, num_mels + 2)
    if scale == "slaney":  # compat: its last digit decides what the bin of Nyquist gets, 0 or 1e-17
        edges[-1] = (last - first) / (num_mels + 1) * (num_mels + 1) + first
    bins = np.arange(fft // 2 + 1) * (sample_rate / fft)
    if flanks == "hertz":
        edges = np.array([_to_hertz(float(edge), scale) for edge in edges])
    else:
        bins = np.array([_to_mel(float(one), scale) for one in bins])
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    up, down = (bins[:, None] - left) / (center - left), (right - bins[:, None]) / (right - center)
    triangles: np.ndarray = np.minimum(up, down).clip(min=0)
    return triangles * 2 / (right - left) if equal_area else triangles


def _to_mel(hertz: float, scale: Scale) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000, 6.4)


def _to_hertz(mel: float, scale: Scale) -> float:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)
