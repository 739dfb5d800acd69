"""The three-line interface and the commands over it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import unitone
from unitone.errors import ConfigError, CorpusError
from unitone.lm import decode, inference, speak, transcribe, translate
from unitone.lm.inference import UnifiedModel
from unitone.lm.options import DecodingPrecision


@pytest.fixture
def model(world: Any) -> UnifiedModel:
    return inference.load(world.model, device="cpu")


def recording(world: Any, number: int) -> Path:
    return Path(world.manifest.parent / f"{number}.wav")


def test_load_is_there_without_torch() -> None:
    code = (
        "import sys, unitone; assert 'torch' not in sys.modules; "
        "assert not hasattr(unitone, 'lode'); from unitone import load; "
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert unitone.load is inference.load


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_transcripts_are_those_of_the_corpus(
    world: Any, precision: DecodingPrecision, tmp_path: Path
) -> None:
    model = inference.load(world.model, device="cpu", precision=precision)
    out = tmp_path / "hyp.jsonl"
    options = ["--model", world.model, "--task", "asr", "--tokens", world.tokens, "--out", out]
    assert decode.main([*map(str, options), "--device", "cpu", "--precision", precision]) == 0
    expected = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    paths = [recording(world, number) for number in range(6)]
    assert model.transcribe_all(paths) == expected
    assert model.transcribe(str(paths[3])) == expected[3]
    samples, rate = soundfile.read(paths[2], dtype="float32")
    assert rate == 16_000
    assert model.transcribe(samples) == expected[2]


def test_speaking(model: UnifiedModel) -> None:
    wave, rate = model.speak("two dogs", speaker="bob", language="en")
    assert rate == 16_000
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    again, _ = model.speak("two dogs", speaker="bob", language="en")
    assert np.array_equal(wave, again)
    with pytest.raises(ConfigError, match="no speaker 'eve'; the model has ann, bob"):
        model.speak("two dogs", speaker="eve")
    with pytest.raises(CorpusError, match="no text"):
        model.speak("")


def test_translating_speech_and_text(world: Any, model: UnifiedModel) -> None:
    assert isinstance(model.translate("two dogs", to="de"), str)
    path = recording(world, 1)
    assert model.translate(path, to="de") == model.translate(str(path), to="de")
    with pytest.raises(ConfigError, match="no language 'xx'; the model has de, en"):
        model.translate("two dogs", to="xx")
    with pytest.raises(CorpusError, match="no such file"):
        model.translate("absent.wav", to="de")


def test_identifying(world: Any, model: UnifiedModel) -> None:
    assert model.identify_language(recording(world, 0)) in ("de", "en", "")
    assert model.identify_gender(recording(world, 0)) in ("f", "m", "")


def test_a_continuation_is_longer_than_its_beginning(world: Any, model: UnifiedModel) -> None:
    wave, _ = model.continue_speech(recording(world, 0))
    assert len(wave) >= 160


def test_a_recording_longer_than_the_context(model: UnifiedModel, speech: Any) -> None:
    with pytest.raises(CorpusError, match="the model's context is 400"):
        model.transcribe(speech(50.0))


def test_a_model_without_a_voice_or_a_tokenizer(world: Any, tmp_path: Path) -> None:
    copied = tmp_path / "best"
    shutil.copytree(world.model, copied)
    shutil.rmtree(copied / "decoder")
    with pytest.raises(ConfigError, match="has no unit decoder"):
        inference.load(copied, device="cpu").speak("two dogs")
    voice = inference.load(copied, device="cpu", decoder=world.model / "decoder")
    assert voice.speak("two dogs").rate == 16_000
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(ConfigError, match="has no tokenizer/"):
        inference.load(copied, device="cpu")


def test_the_commands(
    world: Any, model: UnifiedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--model", str(world.model), "--device", "cpu"]
    path = str(recording(world, 0))
    assert transcribe.main([path, *named]) == 0
    assert capsys.readouterr().out == model.transcribe(path) + "\n"
    assert translate.main(["two dogs", "--to", "de", *named]) == 0
    assert capsys.readouterr().out == model.translate("two dogs", to="de") + "\n"
    out = tmp_path / "a.wav"
    assert speak.main(["two dogs", "--out", str(out), "--speaker", "bob", *named]) == 0
    wave, _ = soundfile.read(out)
    assert len(wave) == len(model.speak("two dogs", speaker="bob").wave)
    assert speak.main(["two dogs", "--out", str(tmp_path / "a.mp4"), *named]) == 2


def test_without_the_tours_model_the_commands_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert transcribe.main(["a.wav"]) == 2
    error = capsys.readouterr().err
    assert "name a model with --model" in error
    assert "unitone tour" in error
