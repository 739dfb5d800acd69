import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.codecs.nn.spectrum import (
    Framing,
    framing_of,
    griffin_lim,
    log_mel,
    mel_filters,
    spectrum,
    trim,
    waveform,
)

MFCC = framing_of(fft=640, unit_hop=160, receptive_field=400)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_windows_lie_in_the_middle_of_what_the_units_see() -> None:
    """Frame t of MFCC is made from samples 160 t to 160 t + 400."""
    center_of_first = MFCC.fft // 2 - MFCC.left
    assert center_of_first == 200
    assert (MFCC.left, MFCC.right) == (120, 360)
    two = framing_of(fft=640, unit_hop=320, receptive_field=400, frames_per_unit=2)
    centers = [two.fft // 2 - two.left + j * two.hop for j in range(2)]
    assert two.hop == 160
    assert sum(centers) / 2 == 200


@pytest.mark.parametrize(
    ("fft", "hop", "frames_per_unit"), [(100, 160, 1), (640, 160, 7), (300, 160, 1)]
)
def test_an_impossible_framing_is_refused(fft: int, hop: int, frames_per_unit: int) -> None:
    with pytest.raises(ValueError, match=r"window|equal frames"):
        framing_of(fft=fft, unit_hop=hop, receptive_field=400, frames_per_unit=frames_per_unit)


@given(
    frames=st.integers(1, 9),
    hop=st.integers(2, 12),
    overlap=st.integers(2, 4),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_the_inverse_gives_the_samples_back(
    frames: int, hop: int, overlap: int, seed: int, data: st.DataObject
) -> None:
    fft = 2 * hop * overlap
    # sample 0 of a Hann window has weight 0, so no output sample may have that one alone
    left = data.draw(st.integers(1, fft - hop))
    framing = Framing(fft=fft, hop=hop, left=left)
    wave = noise(2, left + frames * hop + framing.right, seed=seed).double()

    spectra = spectrum(wave, framing)
    back = trim(waveform(spectra, framing), framing)

    assert spectra.shape == (2, frames, framing.num_bins)
    assert back.shape == (2, frames * hop)
    torch.testing.assert_close(back, trim(wave, framing), atol=1e-6, rtol=0)


def test_a_padded_row_is_inverted_as_it_would_be_alone() -> None:
    spectra = spectrum(noise(2, 120 + 6 * 160 + 360), MFCC)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])

    together = trim(waveform(spectra, MFCC, valid), MFCC)
    alone = trim(waveform(spectra[1:, :4], MFCC), MFCC)

    torch.testing.assert_close(together[1, : 4 * 160], alone[0])


def test_spectrum_agrees_with_torch_stft() -> None:
    wave = noise(1, 3200)
    theirs = torch.stft(
        wave, 512, 128, window=torch.hann_window(512), center=False, return_complex=True
    )
    ours = spectrum(wave, Framing(fft=512, hop=128, left=0))
    torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_mel_filters_have_slaneys_published_places_and_areas() -> None:
    """1000 Hz is mel 15 and each further mel is a factor of 6.4 ** (1 / 27) (Slaney 1998)."""
    filters = mel_filters(fft=1024, num_mels=80, sample_rate=16_000)
    assert filters.shape == (513, 80)
    top = 15 + 27 * np.log(8) / np.log(6.4)
    steps = np.arange(82) * top / 81
    hertz = np.where(steps < 15, steps * 200 / 3, 1000 * 6.4 ** ((steps - 15) / 27))
    # a triangle of height 2 / (right - left): its area in Hz is 1, up to the grid of bins
    area = filters.sum(dim=0).numpy() * 16_000 / 1024
    assert np.abs(area - 1).max() < 0.08
    peaks = filters.argmax(dim=0).numpy() * 16_000 / 1024
    assert np.abs(peaks - hertz[1:-1]).max() <= 16_000 / 1024
    assert float(filters[0].sum()) == 0


def test_log_mel_has_a_floor() -> None:
    filters = mel_filters(fft=640, num_mels=80, sample_rate=16_000)
    silence = log_mel(torch.zeros(1, 3, 321), filters)
    torch.testing.assert_close(silence, torch.full((1, 3, 80), np.log(1e-5)).float())


def convergence(wave: torch.Tensor, magnitudes: torch.Tensor) -> float:
    """Return ||A - |S(x)||| / ||A||, the measure of Griffin and Lim's successors."""
    found = spectrum(wave, MFCC).abs()
    return float((found - magnitudes).norm() / magnitudes.norm())


def chord() -> torch.Tensor:
    time = torch.arange(120 + 40 * 160 + 360) / 16_000
    glide = torch.sin(2 * torch.pi * (200 * time + 150 * time**2))
    return (glide + 0.3 * torch.sin(2 * torch.pi * 1234 * time) * (time > 0.2))[None] * 0.3


def test_griffin_lim_converges_and_momentum_helps() -> None:
    magnitudes = spectrum(chord(), MFCC).abs()

    def after(iterations: int, momentum: float) -> float:
        generator = torch.Generator().manual_seed(3)
        wave = griffin_lim(
            magnitudes, MFCC, generator=generator, iterations=iterations, momentum=momentum
        )
        return convergence(wave, magnitudes)

    assert after(32, 0.99) < 0.6 * after(32, 0.0)
    assert after(32, 0.99) < 0.1
    assert after(4, 0.99) > after(32, 0.99)


def test_griffin_lim_of_silence_is_silent() -> None:
    wave = griffin_lim(torch.zeros(1, 5, 321), MFCC, generator=torch.Generator(), iterations=3)
    assert not wave.any()


def test_griffin_lim_of_a_padded_row_is_that_of_the_row_alone() -> None:
    magnitudes = spectrum(chord()[:, : 120 + 12 * 160 + 360], MFCC).abs().repeat(2, 1, 1)
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[1, 7:] = False

    def run(rows: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        wave = griffin_lim(rows, MFCC, generator=generator, iterations=6, valid=there)
        return trim(wave, MFCC)

    together = run(magnitudes, valid)
    alone = run(magnitudes[1:, :7], valid[1:, :7])
    torch.testing.assert_close(together[1, : 7 * 160], alone[0], atol=1e-4, rtol=0)
