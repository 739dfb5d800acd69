"""The commands of `unitone.lm` with a T2V2: every task, resumed, averaged, from recordings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.lm.conftest import World
from tests.lm.t2v2.conftest import TABLE
from unitone import files
from unitone.lm import average, decode, speak, transcribe, translate
from unitone.lm import train as lm_train


def decoded(model: Path, task: str, out: Path, *words: str) -> list[dict[str, Any]]:
    options = ["--model", str(model), "--task", task, "--out", str(out), "--device", "cpu"]
    assert decode.main([*options, *words]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ("asr", "text"),
        ("tts", "units"),
        ("st", "text"),
        ("mt", "text"),
        ("lid", "label"),
        ("gid", "label"),
    ],
)
def test_every_task_is_decoded(learnt: Path, tmp_path: Path, task: str, field: str) -> None:
    to = ["--to", "de", "en"] if task in ("st", "mt") else []
    words = ["--tokens", str(learnt.parent / "tokens"), *to]
    lines = decoded(learnt / "last", task, tmp_path / "h.jsonl", *words)
    assert [line["id"] for line in lines] == [row["id"] for row in TABLE]
    assert all(line[field] for line in lines)
    settings = files.read_json(tmp_path / "h.decoding.json")["settings"]
    assert settings["decoding"]["rounds"] == 8


@pytest.mark.parametrize(("option", "known"), [("speaker", "ann"), ("language", "en")])
def test_speech_is_of_the_speaker_asked_for(
    learnt: Path,
    tmp_path: Path,
    option: str,
    known: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--tokens", str(learnt.parent / "tokens"), "--limit", "2"]
    assert decoded(learnt / "last", "tts", tmp_path / "h.jsonl", *words, f"--{option}", known)
    options = ["--model", str(learnt / "last"), "--task", "tts", "--out", str(tmp_path / "i.jsonl")]
    assert decode.main([*options, *words, f"--{option}", "xx"]) == 2
    assert f"no {option} 'xx'" in capsys.readouterr().err


def test_a_run_that_is_stopped_goes_on_and_is_averaged(learnt: Path, tmp_path: Path) -> None:
    words = ["--config", "t2v2-tiny", "--tokens", str(learnt.parent / "tokens"), "--threads", "1"]
    words += ["--device", "cpu", "--warmup-steps", "1", "--max-tokens", "600", "--upsample", "2"]
    words += ["--steps", "4", "--save-every", "2", "--valid-utterances", "0", "--keep", "3"]
    run = tmp_path / "run"
    assert lm_train.main([*words, "--out", str(run)]) == 0
    weights = (run / "last" / "model.safetensors").read_bytes()
    newest = max((run / "checkpoints").iterdir(), key=lambda path: path.name)
    shutil.rmtree(newest)
    shutil.rmtree(run / "last")
    assert lm_train.main([*words, "--out", str(run)]) == 0
    assert (run / "last" / "model.safetensors").read_bytes() == weights
    assert average.main(["--run", str(run), "--out", str(tmp_path / "mean"), "--last", "2"]) == 0
    words = ["--tokens", str(learnt.parent / "tokens"), "--limit", "2"]
    assert len(decoded(tmp_path / "mean", "asr", tmp_path / "h.jsonl", *words)) == 2


def test_recordings_and_texts_go_through_the_short_commands(
    world: World, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = str(world.manifest.parent / "3.wav")
    model = ["--model", str(spoken), "--device", "cpu"]
    assert transcribe.main([recording, *model]) == 0
    assert translate.main([recording, "--to", "de", *model]) == 0
    assert translate.main(["sentence 3", "--to", "de", *model]) == 0
    assert capsys.readouterr().out.count("\n") == 3  # nothing is learnt: any character comes
    out = tmp_path / "a.wav"
    assert speak.main(["sentence 3", "--out", str(out), "--speaker", "ann", *model]) == 0
    assert out.stat().st_size > 1000
