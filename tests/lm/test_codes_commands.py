"""From recordings through a neural codec's codes to a model that hears and speaks them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

import unitone
from tests.lm.conftest import UNITS, write_corpus
from unitone.codecs import codec as codecs
from unitone.codecs import encode as codes_encode
from unitone.lm import decode
from unitone.lm import train as lm_train
from unitone.tokenizers import build, encode
from unitone.tokenizers.shards import TokenShards

LEVELS = 3


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Recordings, their units and codes, and the codec."""

    manifest: Path
    units: Path
    codes: Path
    codec: Path


@pytest.fixture(scope="module")
def coded(
    tmp_path_factory: pytest.TempPathFactory,
    speech: Callable[..., np.ndarray],
    make_encodec: Callable[..., Path],
) -> Coded:
    folder = tmp_path_factory.mktemp("coded")
    manifest, codec = write_corpus(folder, speech), make_encodec(folder / "encodec")
    made = Coded(manifest=manifest, units=folder / "tokens", codes=folder / "codes", codec=codec)
    options = ["--manifest", str(manifest)]
    small = ["--ssl", "mfcc", "--k", str(UNITS), "--pieces", "0", "--out", str(folder / "t")]
    assert build.main([*options, *small]) == 0
    tokenizer = ["--tokenizer", str(folder / "t")]
    assert encode.main([*options, *tokenizer, "--out", str(made.units)]) == 0
    given = ["--tokens", str(made.units), "--codec", str(codec)]
    assert codes_encode.main([*options, *given, "--out", str(made.codes)]) == 0
    return made


def arguments(coded: Coded, out: Path, *more: str) -> list[str]:
    return [
        *("--data", str(coded.codes), "--out", str(out), "--table", "codes"),
        *("--config", "lm-tiny", "--decoder", str(coded.codec), "--device", "cpu"),
        *("--valid-utterances", "1", "--threads", "1", "--context", "400"),
        *more,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["delay", "flat"])
def test_a_model_learns_the_codes_of_recordings_by_heart(
    coded: Coded, pattern: str, tmp_path: Path
) -> None:
    options = [
        *("--tasks", "tts", "asr", "--codes-pattern", pattern, "--split", "train", "--lr", "1e-3"),
        *("--steps", "200", "--max-tokens", "800", "--validate-every", "200", "--packing"),
        *("--weights", "tts", "4", "asr", "2", "--warmup-steps", "10"),
    ]
    assert lm_train.main(arguments(coded, tmp_path / "run", *options)) == 0
    model, out = tmp_path / "run" / "last", tmp_path / "h.jsonl"
    said = ["--model", str(model), "--task", "tts", "--tokens", str(coded.codes)]
    said += ["--split", "train", "--temperature", "0", "--out", str(out)]
    assert decode.main([*said, "--audio", str(tmp_path / "wav")]) == 0
    shards, codec = TokenShards(coded.codes), codecs.load(coded.codec)
    truth = {row["id"]: row["codes"] for row in shards.rows()}
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["u0", "u1", "u2", "u3"]
    for line in lines:
        codes = np.array(line["codes"], np.int32)
        np.testing.assert_array_equal(codes, truth[line["id"]])
        wave, rate = soundfile.read(out.parent / line["audio"], dtype="float32")
        direct = codec.decode(truth[line["id"]]).wave
        direct = direct / max(1.0, float(np.abs(direct).max()))
        assert rate == codec.sample_rate
        np.testing.assert_allclose(wave, direct, atol=1 / 32_000)

    loaded = unitone.load(model, device="cpu")
    recording = coded.manifest.parent / "1.wav"
    assert loaded.transcribe(recording) == "sentence 1"
    assert loaded.speak("sentence 1", speaker="ann", language="en").rate == codec.sample_rate
    heard = ["--model", str(model), "--task", "asr", "--manifest", str(coded.manifest)]
    asr = tmp_path / "asr.jsonl"
    assert decode.main([*heard, "--split", "train", "--out", str(asr)]) == 0
    texts = [json.loads(line)["text"] for line in asr.read_text().splitlines()]
    assert texts == [f"sentence {number}" for number in range(4)]
