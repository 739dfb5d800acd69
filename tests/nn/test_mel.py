"""The filters that features, losses and the judge share."""

from typing import Literal

import numpy as np
import pytest

from unitone.nn.mel import Scale, mel_filters


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_triangles_add_up_to_one_between_the_outer_peaks(scale: Scale) -> None:
    filters = mel_filters(fft=4096, num_mels=20, sample_rate=16_000, scale=scale)
    peaks = filters.argmax(axis=0)
    assert (np.diff(peaks) > 0).all()
    inner = filters[peaks[0] + 1 : peaks[-1]].sum(axis=1)
    np.testing.assert_allclose(inner, 1.0, atol=1e-12)


def test_a_thousand_hertz_is_a_thousand_mel_of_htk() -> None:
    """20 to 2595 log10(1 + 8000 / 700) = 2840 mel: one band peaks at half of it, 1800 Hz."""
    filters = mel_filters(fft=16_000, num_mels=1, sample_rate=16_000, scale="htk")
    peak = 700 * (10 ** (np.log10(1 + 8000 / 700) / 2) - 1)
    assert abs(int(filters[:, 0].argmax()) - peak) <= 0.5


def test_flanks_in_mel_lie_above_those_in_hertz_on_the_way_up() -> None:
    def one(flanks: Literal["hertz", "mel"]) -> np.ndarray:
        return mel_filters(
            fft=16_000, num_mels=1, sample_rate=16_000, scale="htk", low=20.0, flanks=flanks
        )[:, 0]

    in_hertz, in_mel = one("hertz"), one("mel")
    peak = int(in_hertz.argmax())
    assert in_mel.argmax() == peak
    assert max(in_hertz[20], in_mel[20]) < 1e-9
    assert in_mel[peak // 2] > in_hertz[peak // 2]  # a logarithm lies above its chord
