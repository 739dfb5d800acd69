"""Short-time spectra that are tied to units: frame j of unit t lies over that unit's samples.

A frame of features is made from ``receptive field`` samples, which begin at t * unit hop; its
spectral frame has its center where those have theirs. So there is no centring and no reflection: a
stretch of T frames is analyzed from ``left`` samples before its first to ``right`` samples after
its last, and T inverted frames give those samples back. Trimmed, T frames are exactly T hops, and
output sample n is input sample n.

Windows are periodic Hann. Axes: B batch, N samples, T spectral frames, F bins, M mel bands.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Generator, Tensor
from torch.nn import functional

from unitone.nn import mel

FLOOR = 1e-5
"""Smallest magnitude before a logarithm, as in HiFi-GAN: -100 dB."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Where the frames of a short-time spectrum lie; all in samples."""

    fft: int
    """Length of window and transform."""
    hop: int
    left: int
    """From the beginning of the first window to the first sample of the output."""

    def __post_init__(self) -> None:
        if not (0 < self.hop < self.fft and 0 <= self.left <= self.fft - self.hop):
            raise ValueError(
                f"a window of {self.fft} samples, hop {self.hop}, can't begin {self.left} samples "
                f"before the output: 0 to {self.fft - self.hop} is possible"
            )

    @property
    def right(self) -> int:
        """From the last sample of the output to the end of the last window."""
        return self.fft - self.hop - self.left

    @property
    def num_bins(self) -> int:
        """Bins from 0 Hz to Nyquist, both included."""
        return self.fft // 2 + 1


def framing_of(
    *, fft: int, unit_hop: int, receptive_field: int, frames_per_unit: int = 1
) -> Framing:
    """Return the framing whose windows lie in the middle of what the units were made from.

    Raises:
        ValueError: the unit hop can't be divided so, or the window is too short.
    """
    if unit_hop % frames_per_unit:
        raise ValueError(f"{unit_hop} samples can't be cut into {frames_per_unit} equal frames")
    hop = unit_hop // frames_per_unit
    first = receptive_field // 2 - (frames_per_unit - 1) * hop // 2  # center of the first window
    return Framing(fft=fft, hop=hop, left=fft // 2 - first)


def spectrum(waves: Float[Tensor, "B N"], framing: Framing) -> Complex[Tensor, "B T F"]:
    """Analyze every whole window of ``waves``, which begin ``left`` samples before frame 0."""
    frames = waves.unfold(-1, framing.fft, framing.hop)
    spectra: Tensor = torch.fft.rfft(frames * window(framing.fft).to(waves), dim=-1)
    return spectra


def waveform(
    spectra: Complex[Tensor, "B T F"], framing: Framing, valid: Bool[Tensor, "B T"] | None = None
) -> Float[Tensor, "B N"]:
    """Invert by weighted overlap-add (Griffin and Lim 1984, eq. 6): the least-squares waveform.

    It has ``left`` and ``right`` samples more than its frames have hops; `trim` takes them off.
    Frames that are not ``valid`` count for nothing, so a padded row is what it would be alone.
    """
    shape = window(framing.fft).to(spectra.real)
    frames = torch.fft.irfft(spectra, n=framing.fft, dim=-1) * shape
    weight = shape.square().expand(frames.shape if valid is not None else frames.shape[1:])
    if valid is not None:
        frames, weight = frames * valid[:, :, None], weight * valid[:, :, None]
    weights = _overlap_add(weight.reshape(-1, *frames.shape[1:]), framing.hop)
    return _overlap_add(frames, framing.hop) / weights.clamp(min=1e-8)


def trim(waves: Float[Tensor, "B N"], framing: Framing) -> Float[Tensor, "B M"]:
    """Take off what the first and the last window have beyond the frames' own hops."""
    return waves[:, framing.left : waves.shape[1] - framing.right]


def _overlap_add(frames: Float[Tensor, "B T L"], hop: int) -> Float[Tensor, "B N"]:
    """Sum windows that begin a hop apart; a loop over the few hops in a window, none over time."""
    num_items, num_frames, length = frames.shape
    num_hops = -(-length // hop)
    pieces = functional.pad(frames, (0, num_hops * hop - length)).unflatten(2, (num_hops, hop))
    total = frames.new_zeros(num_items, num_frames + num_hops - 1, hop)
    for index in range(num_hops):
        total[:, index : index + num_frames] += pieces[:, :, index]
    return total.flatten(1)[:, : (num_frames - 1) * hop + length]


@lru_cache(maxsize=16)
def window(length: int) -> Float[Tensor, "L"]:
    """Return the periodic Hann window."""
    with torch.inference_mode(False):  # it is kept, and training may be next
        return torch.hann_window(length)


@lru_cache(maxsize=16)
def mel_filters(*, fft: int, num_mels: int, sample_rate: int) -> Float[Tensor, "F M"]:
    """Return triangles of equal area on Slaney's scale, 0 Hz to Nyquist, as HiFi-GAN uses them."""
    filters = mel.mel_filters(
        fft=fft, num_mels=num_mels, sample_rate=sample_rate, scale="slaney", equal_area=True
    )
    with torch.inference_mode(False):
        return torch.from_numpy(filters.astype(np.float32))


def log_mel(magnitudes: Float[Tensor, "B T F"], filters: Float[Tensor, "F M"]) -> Tensor:
    """Return natural logarithms of mel magnitudes (B, T, M), not below `FLOOR`."""
    return (magnitudes @ filters).clamp(min=FLOOR).log()


def griffin_lim(
    magnitudes: Float[Tensor, "B T F"],
    framing: Framing,
    *,
    generator: Generator,
    iterations: int = 32,
    momentum: float = 0.99,
    valid: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B N"]:
    """Find a waveform whose spectrum has these magnitudes; the phases start at random.

    Perraudin, Balazs and Sondergaard 2013, "A fast Griffin-Lim algorithm", algorithm 2: after each
    projection onto the consistent spectra, c, go on in the direction of the last change, to
    c + momentum * (c - previous c). With momentum 0 it is the algorithm of 1984. The result is
    untrimmed, as of `waveform`.
    """
    # every row has the same phases, so that none depends on how many others there are
    turns = torch.rand(magnitudes.shape[1:], generator=generator).to(magnitudes)
    guess = torch.polar(torch.ones_like(magnitudes), (2 * math.pi * turns).expand_as(magnitudes))
    previous = torch.zeros_like(guess)
    for _ in range(iterations):
        wave = waveform(_with_magnitudes(guess, magnitudes), framing, valid)
        consistent = spectrum(wave, framing)
        guess = consistent + momentum * (consistent - previous)
        previous = consistent
    return waveform(_with_magnitudes(guess, magnitudes), framing, valid)


def _with_magnitudes(
    spectra: Complex[Tensor, "B T F"], magnitudes: Float[Tensor, "B T F"]
) -> Complex[Tensor, "B T F"]:
    return spectra * (magnitudes / spectra.abs().clamp(min=1e-12))
