"""One call from a recording to units, the same ones that encoding a corpus gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

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
