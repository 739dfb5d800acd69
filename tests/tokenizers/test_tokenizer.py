"""One call from a recording to units, the same ones that encoding a corpus gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unitone.errors import CorpusError
from unitone.tokenizers import build, encode
from unitone.tokenizers.kmeans.units import expand
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import Tokenizer

Speech = Callable[..., np.ndarray]


@pytest.fixture(params=["0", "2"])
def tokenizer(request: pytest.FixtureRequest, tiny_corpus: Path, tmp_path: Path) -> Path:
    manifest = str(tiny_corpus / "manifest.jsonl")
    out = tmp_path / "tokenizer"
    arguments = ["--manifest", manifest, "--ssl", "mfcc", "--k", "4", "--out", str(out)]
    assert build.main([*arguments, "--duration-penalty", request.param]) == 0
    return out


def test_a_file_and_its_samples_give_the_units_of_the_shards(
    tokenizer: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    manifest = str(tiny_corpus / "manifest.jsonl")
    shards = tmp_path / "tokens"
    arguments = ["--tokenizer", str(tokenizer), "--manifest", manifest, "--out", str(shards)]
    assert encode.main(arguments) == 0

    units = Tokenizer.load(tokenizer).open(device="cpu")

    for row in TokenShards(shards).rows():
        path = tiny_corpus / f"{row['id']}.wav"
        samples, _ = soundfile.read(path, dtype="float32")
        expected = expand(np.array(row["units"], np.int32), np.array(row["durations"], np.int32))
        assert np.array_equal(units(path), expected)
        assert np.array_equal(units(samples), expected)


def test_what_has_no_units_says_why(tokenizer: Path, tmp_path: Path, speech: Speech) -> None:
    units = Tokenizer.load(tokenizer).open(device="cpu")

    with pytest.raises(CorpusError, match="no such file"):
        units(tmp_path / "none.wav")
    with pytest.raises(CorpusError, match="less than one frame"):
        units(speech(0.01))


def test_arrays_of_any_kind_give_the_units_of_their_file(
    tokenizer: Path, tmp_path: Path, speech: Speech
) -> None:
    units, path = Tokenizer.load(str(tokenizer)).open(device="cpu"), tmp_path / "a.wav"
    soundfile.write(path, speech(1.0), 16_000, subtype="PCM_16")
    whole, _ = soundfile.read(path, dtype="int16")
    expected = units(path)
    for given in (whole, torch.from_numpy(whole), np.stack([whole, whole]), (whole, 16_000)):
        assert np.array_equal(units(given), expected)
    for broken, why in (
        (np.full(16_000, np.nan), "not finite"),
        (np.zeros(16_000), "every sample is zero"),
        (np.ones((200, 200)), "got shape"),
    ):
        with pytest.raises(CorpusError, match=why):
            units(broken)


def test_a_long_array_goes_through_window_by_window_as_its_file_does(
    tokenizer: Path, tmp_path: Path, speech: Speech
) -> None:
    units, path = Tokenizer.load(tokenizer).open(device="cpu"), tmp_path / "a.wav"
    wave = speech(75.0)
    soundfile.write(path, wave, 16_000, subtype="FLOAT")
    assert len(wave) > units.extractor.window_samples
    assert np.array_equal(units(wave), units(path))
