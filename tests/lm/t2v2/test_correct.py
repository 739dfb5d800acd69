"""A T2V2 that judges and repairs texts of another model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.lm.conftest import World
from tests.lm.t2v2.conftest import TABLE
from unitone.lm import decode, family
from unitone.lm.drafts.correct import corrected, likelihoods
from unitone.lm.family import LoadedModel


@pytest.fixture(scope="session")
def loaded(learnt: Path) -> LoadedModel:
    return family.load(learnt / "last", device="cpu")


def frames_of(row: dict[str, Any]) -> Tensor:
    return torch.tensor(row["units"]).repeat_interleave(2)


def test_the_right_text_is_the_likeliest(loaded: LoadedModel) -> None:
    for row in TABLE[:8]:
        right = [*row["text"].encode()]
        others = [[*b"one"], [], right[:-1], [*right, right[-1]], [*("x" * 30).encode()]]
        found = likelihoods(loaded.model, frames_of(row), [right, *others])
        assert max(found) == found[0] > -1.0
        assert found[-1] == -np.inf
        assert np.isfinite(found[:-1]).all()


def test_one_wrong_letter_is_corrected(loaded: LoadedModel) -> None:
    right = []
    for number, row in enumerate(TABLE):
        text = [*row["text"].encode()]
        text[number % len(text)] = ord("q")
        made = corrected(loaded.model, frames_of(row), text, threshold=0.7, rounds=8)
        right.append(bytes(made).decode() == row["text"])
    assert np.mean(right) >= 0.8


def test_right_texts_and_texts_that_do_not_fit_stay(loaded: LoadedModel) -> None:
    for row in TABLE[:8]:
        text = [*row["text"].encode()]
        assert corrected(loaded.model, frames_of(row), text, threshold=0.7, rounds=8) == text
    long = [*("one " * 9).encode()]
    assert corrected(loaded.model, frames_of(TABLE[0]), long, threshold=0.7, rounds=8) == long
    assert corrected(loaded.model, frames_of(TABLE[0]), [], threshold=0.7, rounds=8) == []


def test_the_command_corrects(
    world: World, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "h.jsonl"
    run = ["--model", str(world.model), "--tokens", str(world.tokens), "--device", "cpu"]
    run += ["--correct", str(spoken)]
    words = ["--task", "asr", "--beam", "3", "--out", str(out)]
    assert decode.main([*run, *words]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [*world.ids]
    assert all(isinstance(line["text"], str) for line in lines)
    run += ["--out", str(tmp_path / "i.jsonl")]
    assert decode.main([*run, "--task", "tts"]) == 2
    assert "--correct: task tts reads no text off units" in capsys.readouterr().err
    assert decode.main([*run, "--task", "asr", "--draft", str(spoken)]) == 2
    assert "--draft and --correct don't go together" in capsys.readouterr().err
    run[1] = str(spoken)
    assert decode.main([*run, "--task", "asr"]) == 2
    assert "a model of the family t2v2; --correct is a T2V2 that helps" in capsys.readouterr().err
