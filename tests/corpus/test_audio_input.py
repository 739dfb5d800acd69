"""Samples in memory are looked at as those of a file are, whoever hands them in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unitone.corpus import audio
from unitone.corpus.audio import Statistics, faintness, waveform_of
from unitone.errors import CorpusError

Speech = Callable[..., np.ndarray]


@pytest.mark.parametrize(
    ("dtype", "subtype"), [("int16", "PCM_16"), ("int32", "PCM_32"), ("uint8", "PCM_U8")]
)
def test_integers_are_what_a_file_of_them_reads_as(
    dtype: str, subtype: str, tmp_path: Path, speech: Speech
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(0.5), 16_000, subtype=subtype)
    whole = np.array(
        soundfile.read(path, dtype="int32")[0], np.int32
    )  # 8 and 16 bit are its highest ones
    integers = {"int16": whole >> 16, "int32": whole, "uint8": (whole >> 24) + 128}[dtype]
    assert np.array_equal(audio.load(integers.astype(dtype)), audio.load(path))


def test_channels_are_averaged_in_either_order_as_in_a_file(tmp_path: Path, speech: Speech) -> None:
    path, two = tmp_path / "a.wav", np.stack([speech(0.5), speech(0.5, 1)])
    soundfile.write(path, two.T, 16_000, subtype="FLOAT")
    expected = audio.load(path)
    assert np.array_equal(audio.load(two), expected)
    assert np.array_equal(audio.load(two.T), expected)
    assert np.array_equal(audio.load(two[:1]), two[0])


def test_tensors_lists_and_pairs_with_a_rate(speech: Speech) -> None:
    wave = speech(0.5)
    tensor = torch.from_numpy(wave)
    for given in (tensor, tensor[None], wave.tolist(), (wave, 16_000)):
        assert np.array_equal(audio.load(given), wave)
    half = torch.from_numpy(wave).bfloat16().requires_grad_()
    assert np.abs(audio.load(half) - wave).max() < 0.01
    assert len(audio.load((wave, 8_000))) == 2 * len(wave)


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (np.array([0.1, np.nan]), "not finite"),
        (np.array([0.1, np.inf], np.float32), "not finite"),
        (np.array([0.1, 1e300]), "not finite"),
        (np.zeros(400, np.float32), "every sample is zero"),
        (np.zeros(0, np.float32), "N >= 1"),
        (np.zeros((0, 2), np.float32), "N >= 1"),
        (np.ones((100, 100), np.float32), r"got shape \(100, 100\)"),
        (np.ones((2, 3, 400), np.float32), "got shape"),
        (np.array([100, 20_000], np.float32), "divide 16-bit samples by 32768"),
        (np.array([100, 20_000]), "samples of type int64"),
        (np.array([True, False]), "samples of type bool"),
        (np.array([1j, 2]), "samples of type complex128"),
        (b"RIFF", "samples of type"),
        (None, "samples of type object"),
        ((np.ones(400), 3), "a sampling rate of 3 Hz"),
    ],
)
def test_what_is_no_waveform_is_refused_in_a_sentence(samples: object, why: str) -> None:
    with pytest.raises(CorpusError, match=why):
        audio.load(samples)


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="a folder; name the audio files in it"):
        audio.load(tmp_path)


def test_silence_is_a_waveform_too() -> None:
    assert not waveform_of(np.zeros(400, np.int16), 16_000).any()  # codecs encode it


def test_words_are_doubted_in_what_is_too_faint_or_too_short(speech: Speech) -> None:
    def of(wave: np.ndarray) -> Statistics:
        mean, variance = float(wave.mean()), float(wave.var())
        return Statistics(num_samples=len(wave), mean=mean, variance=variance)

    dither = np.random.default_rng(0).uniform(-1, 1, 16_000) / 32_768
    for faint in (dither, dither + 0.3):  # an offset is no sound
        assert "next to silence" in str(faintness(of(faint)))
    assert faintness(of(speech(0.1))) == "0.10 s is too short for words"
    assert faintness(of(speech(1.0) / 20)) is None
