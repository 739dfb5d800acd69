"""``lm.decode --draft``: the same lines as without, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lm.conftest import World, rows
from unitone.lm import decode
from unitone.lm import train as lm_train


def decoded(world: World, out: Path, *words: str) -> list[dict[str, Any]]:
    run = ["--model", str(world.model), "--tokens", str(world.tokens), "--device", "cpu"]
    assert decode.main([*run, "--out", str(out), *words]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("task", "words"), [("asr", []), ("st", ["--to", "de", "en"]), ("mt", ["--to", "de"])]
)
def test_hypotheses_are_those_of_greedy_search(
    world: World, spoken: Path, tmp_path: Path, task: str, words: list[str]
) -> None:
    words = ["--task", task, *words]
    plain = decoded(world, tmp_path / "plain.jsonl", *words)
    drafted = decoded(world, tmp_path / "drafted.jsonl", "--draft", str(spoken), *words)
    for one, other in zip(plain, drafted, strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-4)
        assert one == other
    made = json.loads((tmp_path / "drafted.decoding.json").read_text())
    assert made["settings"]["decoding"]["draft"]["rounds"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--task", "asr", "--beam", "3"],
            "--draft: what is verified is greedy search; set --beam",
        ),
        (["--task", "lid"], "--draft: task lid has no text or units to draft"),
        (["--task", "continue", "--temperature", "0"], "has not learnt task continue"),
        (["--task", "asr", "--words"], "a decoder-only model has no alignment"),
    ],
)
def test_searches_that_a_draft_does_not_help_are_refused(
    world: World,
    spoken: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ["--model", str(world.model), "--tokens", str(world.tokens), "--device", "cpu"]
    run += ["--draft", str(spoken), "--out", str(tmp_path / "h.jsonl")]
    assert decode.main([*run, *words]) == 2
    assert message in capsys.readouterr().err


def test_models_that_do_not_go_together_are_refused(
    world: World,
    spoken: Path,
    make_shards: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    train = ["--config", "t2v2-tiny", "--tokens", str(make_shards(rows(8))), "--steps", "1"]
    train += ["--warmup-steps", "1", "--device", "cpu", "--threads", "1", "--upsample", "2"]
    assert lm_train.main([*train, "--valid-utterances", "0", "--out", str(other)]) == 0
    run = ["--tokens", str(world.tokens), "--task", "asr", "--device", "cpu"]
    run += ["--out", str(tmp_path / "h.jsonl")]
    model = ["--model", str(world.model)]
    assert decode.main([*run, *model, "--draft", str(other)]) == 2
    assert f"--draft {other}: the passports differ in encoder" in capsys.readouterr().err
    assert decode.main([*run, *model, "--draft", str(world.model)]) == 2
    assert "a model of the family decoder; --draft is a T2V2" in capsys.readouterr().err
    assert decode.main([*run, "--model", str(spoken), "--draft", str(spoken)]) == 2
    assert f"--model {spoken}: a model of the family t2v2" in capsys.readouterr().err
    shutil.copytree(spoken, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "tokenizer")
    assert decode.main([*run, *model, "--draft", str(tmp_path / "bare")]) == 2
    assert "both models need their tokenizer/" in capsys.readouterr().err
