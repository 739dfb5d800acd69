"""Every codec of the folder, given silence, noise, a chirp, and what it must refuse."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unitone.codecs import codec as interface
from unitone.codecs.codec import Codec

EXAMPLES = {"huggingface": "encodec", "unit_decoder": "decoder"}
"""Codec: the fixture that has a small one."""
NAMES = sorted(EXAMPLES)

Waves = Callable[[int], np.ndarray]


def silence(num_samples: int) -> np.ndarray:
    return np.zeros(num_samples, np.float32)


def noise(num_samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def chirp(num_samples: int) -> np.ndarray:
    time = np.arange(num_samples) / 16_000
    return (0.5 * np.sin(2 * np.pi * (100 * time + 1500 * time**2))).astype(np.float32)


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest) -> Codec:
    found: Codec = request.getfixturevalue(EXAMPLES[request.param])
    return found


@pytest.fixture
def encodec(make_encodec: Callable[..., Path], tmp_path: Path) -> Codec:
    return interface.load(make_encodec(tmp_path / "encodec"))


def hop_of(codec: Codec) -> int:
    return round(codec.sample_rate / codec.frame_rate)


def test_every_codec_of_the_folder_has_an_example() -> None:
    assert sorted(EXAMPLES) == interface.names()


def test_the_interface(codec: Codec) -> None:
    assert isinstance(codec, Codec)
    assert codec.name in interface.names()
    assert hop_of(codec) * codec.frame_rate == codec.sample_rate
    assert codec.num_levels >= 1
    assert codec.codebook_size >= 1


@pytest.mark.parametrize("make", [silence, noise, chirp])
def test_codes_of_a_waveform(codec: Codec, make: Waves) -> None:
    wave = make(8_000)
    codes = codec.encode(wave, codec.sample_rate)
    assert codes.dtype == np.int32
    assert codes.shape[0] == codec.num_levels
    assert abs(codes.shape[1] - 8_000 / hop_of(codec)) <= 3
    assert codes.min() >= 0
    assert codes.max() < codec.codebook_size
    assert np.array_equal(codes, codec.encode(wave, codec.sample_rate))


@pytest.mark.parametrize("num_frames", [1, 2, 7, 50])
def test_t_frames_are_t_hops_and_the_same_every_time(codec: Codec, num_frames: int) -> None:
    draw = np.random.default_rng(num_frames)
    codes = draw.integers(codec.codebook_size, size=(codec.num_levels, num_frames)).astype(np.int32)
    wave, rate = codec.decode(codes)
    assert rate == codec.sample_rate
    assert wave.shape == (num_frames * hop_of(codec),)
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert np.array_equal(wave, codec.decode(codes).wave)
    if codec.num_levels == 1:
        assert np.array_equal(wave, codec.decode(codes[0]).wave)


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_any_rate_is_taken(codec: Codec, rate: int) -> None:
    codes = codec.encode(chirp(rate // 2), rate)
    assert abs(codes.shape[1] - codec.frame_rate / 2) <= 3


def test_codes_that_cannot_be_are_refused(codec: Codec) -> None:
    good = np.zeros((codec.num_levels, 4), np.int32)
    with pytest.raises(ValueError, match="outside"):
        codec.decode(good + codec.codebook_size)
    with pytest.raises(ValueError, match="outside"):
        codec.decode(good - 1)
    with pytest.raises(ValueError, match="no codes"):
        codec.decode(good[:, :0])
    with pytest.raises(ValueError, match="shape"):
        codec.decode(np.zeros((codec.num_levels + 1, 4), np.int32))


def test_waveforms_that_cannot_be_are_refused(codec: Codec) -> None:
    broken = chirp(8_000)
    broken[17] = np.nan
    for wave, rate, why in (
        (broken, 16_000, "not finite"),
        (chirp(8_000)[:0], 16_000, "N >= 1"),
        (chirp(8_000), 3, "rate"),
        (chirp(2), 16_000, "less than one frame"),
    ):
        with pytest.raises(ValueError, match=why):
            codec.encode(wave, rate)


def test_a_folder_without_a_codec_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such directory"):
        interface.load(tmp_path / "none")
    with pytest.raises(Exception, match=r"config\.json is missing"):
        interface.load(tmp_path)
    (tmp_path / "config.json").write_text('{"codec": "vinyl"}', encoding="utf-8")
    with pytest.raises(ValueError, match="no codec 'vinyl'; there are huggingface, unit_decoder"):
        interface.load(tmp_path)
    (tmp_path / "config.json").write_text('{"steps": 3}', encoding="utf-8")
    with pytest.raises(Exception, match="doesn't say which codec"):
        interface.load(tmp_path)
