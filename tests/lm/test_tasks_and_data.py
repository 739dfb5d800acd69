"""What a corpus has and what the tasks need: what can't be learnt or validated is said."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.lm.conftest import rows
from unitone.lm import family
from unitone.lm import train as lm_train
from unitone.lm.jobs.validation import Validator

MakeShards = Callable[..., Path]


def train(shards: Path, out: Path, *options: str) -> int:
    words = ["--tokens", str(shards), "--out", str(out), "--config", "lm-tiny", "--steps", "1"]
    words += ["--max-tokens", "512", "--window-examples", "64", "--valid-utterances", "2"]
    return lm_train.main([*words, "--threads", "1", "--device", "cpu", *options])


def validation(out: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (found,) = [line["validation"] for line in lines if "validation" in line]
    return dict(found)


def without(split: str | None, **fields: Any) -> list[dict[str, Any]]:
    return [row | fields if split in (None, row["split"]) else row for row in rows(24)]


def test_a_task_that_dev_has_no_example_of_is_trained_and_not_validated(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    table = without("dev", translation=None, gender=None)
    assert train(make_shards(table), out) == 0
    said = capsys.readouterr().err
    for task in ("st", "mt", "gid"):
        assert f"not validated: task {task}: no utterance of split dev has" in said
        assert f"{task}/loss" not in validation(out)
        assert task in {one.name for one in family.load(out, device="cpu").tasks}
    assert {"loss", "asr/loss", "asr/wer", "lid/accuracy"} <= validation(out).keys()


def test_validation_knows_of_which_of_its_metrics_more_is_better() -> None:
    found = ("loss", "lid/loss", "asr/wer", "lid/accuracy", "gender/accuracy", "st/bleu")
    validator = SimpleNamespace(metrics=found)
    assert vars(Validator)["higher_is_better"].fget(validator) == found[3:]


def test_dev_without_an_example_of_any_task_is_no_validation(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = without("dev", translation=None)
    assert train(make_shards(table), tmp_path / "run", "--tasks", "st") == 0
    assert "not validated: task st" in capsys.readouterr().err
    assert (tmp_path / "run" / "last").is_dir()


def test_tasks_that_the_corpus_can_not_have_are_left_out_and_named(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(make_shards(without(None, translation=None, gender=None)), out) == 0
    said = capsys.readouterr().err
    for task, field in (("st", "translation"), ("mt", "translation"), ("gid", "gender")):
        assert f"task {task} is left out: no utterance of split train has" in said
        assert f"{field} is missing: add it to the manifest and encode again" in said
    found = [task.name for task in family.load(out, device="cpu").tasks]
    assert found == ["asr", "tts", "lid", "continue"]


@pytest.mark.parametrize(
    "options", [["--tasks", "asr", "st"], ["--weights", "st", "2"], ["--rows", "rows.json"]]
)
def test_a_task_that_is_asked_for_by_name_is_an_error(
    make_shards: MakeShards, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "st", "template": "{units} [ {translation} <eos> ]", "emits": ["text"]}
    (tmp_path / "rows.json").write_text(json.dumps([row | {"metric": "bleu"}]))
    options = [str(tmp_path / one) if one == "rows.json" else one for one in options]
    shards = make_shards(without(None, translation=None))
    assert train(shards, tmp_path / "run", *options) == 2
    said = capsys.readouterr().err
    assert "task st: no utterance of split train has" in said
    assert "leave the task out (--tasks)" in said


def test_what_an_option_brings_is_asked_for(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(make_shards(rows(24)), tmp_path / "run", "--table", "polyspeech") == 2
    assert "features is missing: make them with `python -m tokenizers.features`" in (
        capsys.readouterr().err
    )


def test_a_corpus_for_none_of_the_tasks(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = make_shards(without(None, units=[], durations=[], text=None))
    assert train(shards, tmp_path / "run") == 2
    assert "what no task of the table needs" in capsys.readouterr().err
