"""MFCC: frame counts, a second formula, and independence of padding."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.tokenizers.encoders.mfcc import FRAME, HOP, MFCC, differences

Speech = Callable[..., np.ndarray]


def features(samples: np.ndarray) -> torch.Tensor:
    waveform = torch.from_numpy(samples)[None]
    return MFCC().features(waveform, torch.tensor([waveform.shape[1]]))[0]


@given(num_samples=st.integers(400, 4000))
def test_there_is_a_frame_every_10_ms_that_fits(num_samples: int) -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(num_samples).astype(np.float32)

    assert features(samples).shape == ((num_samples - FRAME) // HOP + 1, 39)


def test_one_frame_equals_the_formula_written_out(speech: Speech) -> None:
    samples = speech(0.2)[:400].astype(np.float64)
    frame = samples - samples.mean()
    frame = np.array([frame[n] - 0.97 * frame[max(n - 1, 0)] for n in range(400)])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    power = np.abs(np.fft.rfft(frame * hann**0.85, 512)) ** 2
    mel = [1127 * math.log(1 + f / 700) for f in (20, 8000)]
    edges = np.linspace(mel[0], mel[1], 25)
    energies = []
    for m in range(23):
        total = 0.0
        for b in range(256):
            x = 1127 * math.log(1 + b * 31.25 / 700)
            left, center, right = edges[m : m + 3]
            height = min((x - left) / (center - left), (right - x) / (right - center))
            total += power[b] * max(0.0, height)
        energies.append(math.log(max(total, 1.1920929e-07)))
    expected = []
    for i in range(13):
        scale = math.sqrt((1 if i == 0 else 2) / 23)
        c = scale * sum(e * math.cos(math.pi * i * (j + 0.5) / 23) for j, e in enumerate(energies))
        expected.append(c * (1 + 11 * math.sin(math.pi * i / 22)))

    assert features(samples.astype(np.float32))[0, :13].numpy() == pytest.approx(expected, abs=1e-3)


def test_differences_of_a_ramp_are_its_slope() -> None:
    ramp = 3 * torch.arange(10.0)[None, :, None]
    slope = differences(ramp, torch.tensor([9]))[0, :, 0]

    assert torch.allclose(slope[2:8], torch.full((6,), 3.0))
    assert slope[0] == pytest.approx(
        (1 * 3 + 2 * 6) / 10
    )  # the frame before the first is the first


@given(short=st.integers(400, 3000), seed=st.integers(0, 99))
def test_neighbors_and_padding_change_nothing(short: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch = torch.from_numpy(rng.standard_normal((3, 4000)).astype(np.float32))
    lengths = torch.tensor([4000, short, 2000])
    together = MFCC().features(batch, lengths)
    alone = MFCC().features(batch[1:2, :short], torch.tensor([short]))[0]

    # matrix products of another height may round another way
    assert torch.allclose(together[1, : len(alone)], alone, atol=1e-4)
    assert not together[1, len(alone) :].any()
