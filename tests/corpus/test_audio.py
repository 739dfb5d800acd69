"""Recordings of every kind in, 16 kHz mono float32 out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unitone.corpus import audio
from unitone.corpus.audio import Clip, read, statistics, stream
from unitone.errors import CorpusError

Speech = Callable[..., np.ndarray]


def write(path: Path, samples: np.ndarray, rate: int, subtype: str | None = None) -> Clip:
    soundfile.write(path, samples, rate, subtype=subtype)
    return Clip(path=path)


def test_sixteen_kilohertz_mono_comes_back_sample_for_sample(
    tmp_path: Path, speech: Speech
) -> None:
    samples = speech(25.3)
    clip = write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")

    assert np.array_equal(read(clip), samples)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_keeps_duration_and_pitch(tmp_path: Path, rate: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(12 * rate) / rate)
    clip = write(tmp_path / "a.wav", tone, rate)
    waveform = read(clip)

    assert abs(len(read(clip, rate=24_000)) - 12 * 24_000) <= 1
    spectrum = np.abs(np.fft.rfft(waveform))
    assert abs(len(waveform) - 12 * 16_000) <= 1
    assert np.argmax(spectrum) * 16_000 / len(waveform) == pytest.approx(440, abs=0.2)
    assert np.abs(waveform).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 0.01),
        ("a.wav", "PCM_24", 1e-6),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.1),
        ("a.mp3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_every_format_is_read(
    tmp_path: Path, speech: Speech, name: str, subtype: str, error: float
) -> None:
    samples = speech(2.0)
    waveform = read(write(tmp_path / name, samples, 16_000, subtype=subtype))

    assert waveform.dtype == np.float32
    common = min(len(waveform), len(samples))
    assert common >= 0.98 * len(samples)
    if error < 0.1:  # lossy codecs shift and smear
        assert np.abs(waveform[:common] - samples[:common]).max() < error


def test_channels_are_averaged_or_chosen(tmp_path: Path, speech: Speech) -> None:
    left, right = speech(1.0, 1), speech(1.0, 2)
    clip = write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")

    assert np.allclose(read(clip), (left + right) / 2)
    assert np.array_equal(read(Clip(path=clip.path, channel=1)), right)


def test_a_clip_is_the_stretch_it_names(tmp_path: Path, speech: Speech) -> None:
    samples = speech(3.0)
    write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    clip = Clip(path=tmp_path / "a.wav", start=0.5, duration=1.25)

    assert np.array_equal(read(clip), samples[8_000:28_000])


def test_statistics_are_those_of_the_whole_file(tmp_path: Path, speech: Speech) -> None:
    samples = speech(31.0) + np.float32(0.01)
    known = statistics(write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT"))

    assert known.num_samples == len(samples)
    assert known.mean == pytest.approx(float(samples.mean(dtype=np.float64)), abs=1e-9)
    assert known.variance == pytest.approx(float(samples.astype(np.float64).var()), rel=1e-6)


def test_a_limit_stops_reading(tmp_path: Path, speech: Speech) -> None:
    clip = write(tmp_path / "a.wav", speech(45.0), 16_000)

    assert 16_000 < len(read(clip, limit=16_000)) <= audio.BLOCK


def with_nan(samples: np.ndarray) -> np.ndarray:
    samples = samples.copy()
    samples[100] = np.nan
    return samples


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, s: None, "no such file"),
        (lambda p, s: p.write_bytes(b""), "not readable as audio"),
        (lambda p, s: p.write_bytes(b"RIFF and then nonsense" * 9), "not readable as audio"),
        (lambda p, s: soundfile.write(p, s[:0], 16_000), "holds no samples"),
        (lambda p, s: soundfile.write(p, 0 * s, 16_000), "every sample is zero"),
        (lambda p, s: soundfile.write(p, with_nan(s), 16_000, subtype="FLOAT"), "not finite"),
    ],
)
def test_what_is_no_speech_is_refused_by_name(
    tmp_path: Path, speech: Speech, make: Callable[[Path, np.ndarray], None], message: str
) -> None:
    path = tmp_path / "bad.wav"
    make(path, speech(0.5))

    with pytest.raises(CorpusError, match=message) as caught:
        read(Clip(path=path))
    assert "bad.wav" in str(caught.value)


def test_a_cut_off_flac_is_refused(tmp_path: Path, speech: Speech) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, speech(5.0), 16_000)
    path.write_bytes(path.read_bytes()[:20_000])

    with pytest.raises(CorpusError, match=r"a\.flac"):
        read(Clip(path=path))


def test_a_clip_outside_its_file_is_refused(tmp_path: Path, speech: Speech) -> None:
    write(tmp_path / "a.wav", speech(1.0), 16_000)

    with pytest.raises(CorpusError, match="after the end"):
        read(Clip(path=tmp_path / "a.wav", start=2.0))
    with pytest.raises(CorpusError, match="channel 3"):
        list(stream(Clip(path=tmp_path / "a.wav", channel=3)))
