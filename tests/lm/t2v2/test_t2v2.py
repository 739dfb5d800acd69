"""T2V2 learns all its tasks, and its doors refuse what can't be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.lm.conftest import write_shards
from tests.lm.t2v2.conftest import TABLE
from unitone.errors import ConfigError, CorpusError
from unitone.lm import decode, family
from unitone.lm import train as lm_train
from unitone.lm.family import LoadedModel
from unitone.lm.predictor import Prediction, predict_all
from unitone.lm.t2v2.model import T2V2, size
from unitone.lm.t2v2.options import SIZES, DecodingConfig


@pytest.fixture(scope="session")
def loaded(learnt: Path) -> LoadedModel:
    return family.load(learnt / "last", device="cpu")


def predicted(
    loaded: LoadedModel, task: str, *, to: bool = False, **config: Any
) -> list[Prediction]:
    predictor = loaded.predictor(task, config=DecodingConfig(**config))
    requests = [
        predictor.request(
            loaded.fields.record(row) | ({"to": row["translation"][0]["language"]} if to else {})
        )
        for row in TABLE
    ]
    return predict_all(predictor, requests)


def test_the_small_size_is_the_paper_s() -> None:
    """24.8 M parameters with bytes and 1,024 units (unconditional, which the paper's is)."""
    model = T2V2(size("t2v2-small", vocab_size=1280, text=256, units=1024))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(24.8e6, rel=2e-3)


def test_sizes_are_in_order() -> None:
    found = []
    for name in SIZES:
        with torch.device("meta"):
            model = T2V2(size(name, vocab_size=1280, text=256, units=1024))
        found.append(sum(p.numel() for p in model.parameters()) / 1e6)
    assert found == sorted(found)
    assert 90 < found[3] < 120  # base: 100 M


def test_speech_is_read(loaded: LoadedModel) -> None:
    texts = [one.text for one in predicted(loaded, "asr")]
    assert texts == [row["text"] for row in TABLE]


def test_text_is_spoken(loaded: LoadedModel) -> None:
    for row, one in zip(TABLE, predicted(loaded, "tts", candidates=4), strict=True):
        assert one.units is not None
        assert one.units.tolist() == row["units"]
        assert not one.truncated


@pytest.mark.parametrize("task", ["st", "mt"])
def test_both_are_translated(loaded: LoadedModel, task: str) -> None:
    found = [one.text for one in predicted(loaded, task, to=True)]
    right = [row["translation"][0]["text"] for row in TABLE]
    assert np.mean([a == b for a, b in zip(found, right, strict=True)]) > 0.9


@pytest.mark.parametrize(("task", "field"), [("lid", "language"), ("gid", "gender")])
def test_classes_are_told_apart(loaded: LoadedModel, task: str, field: str) -> None:
    right = [
        one.label == row[field] for one, row in zip(predicted(loaded, task), TABLE, strict=True)
    ]
    assert np.mean(right) >= (0.9 if task == "lid" else 0.5)  # the units don't know the voice


@pytest.mark.parametrize("task", ["asr", "tts"])
def test_alone_is_as_in_a_batch(loaded: LoadedModel, task: str) -> None:
    predictor = loaded.predictor(task, config=DecodingConfig(threshold=1.0, rounds=3))
    requests = [predictor.request(loaded.fields.record(row)) for row in TABLE]
    together = predict_all(predictor, requests)
    for request, one in zip(requests, together, strict=True):
        (alone,) = predictor.predict([request])
        assert (alone.text, alone.score) == (one.text, one.score)
        if alone.units is None or one.units is None:
            assert alone.units is one.units
        else:
            assert alone.units.tolist() == one.units.tolist()


def test_two_passes_of_guidance_change_what_is_drawn(loaded: LoadedModel) -> None:
    some = {
        (guidance, twin): [
            one.score for one in predicted(loaded, "tts", guidance=guidance, twin=twin, passes=3)
        ]
        for guidance, twin in ((0.0, "current"), (1.0, "current"), (1.0, "masked"))
    }
    assert all(np.isfinite(scores).all() for scores in some.values())


def test_longer_lengths_are_longer(loaded: LoadedModel) -> None:
    predictor = loaded.predictor("tts", config=DecodingConfig(length_scale=2.0))
    (one,) = predictor.predict([predictor.request(loaded.fields.record(TABLE[0]))])
    assert one.units is not None
    assert len(one.units) >= 6


def test_the_commands_know_it(learnt: Path, tmp_path: Path) -> None:
    out = tmp_path / "asr.jsonl"
    words = [
        "--model",
        str(learnt / "last"),
        "--task",
        "asr",
        "--tokens",
        str(learnt.parent / "tokens"),
    ]
    assert decode.main([*words, "--out", str(out), "--device", "cpu", "--rounds", "2"]) == 0
    texts = {line["id"]: line["text"] for line in map(json.loads, out.read_text().splitlines())}
    assert texts == {row["id"]: row["text"] for row in TABLE}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "--threshold must be in 0..1"),
        ({"threshold": float("nan")}, "--threshold must be in 0..1"),
        ({"guidance": -1.0}, "--guidance must be 0 or more"),
        ({"passes": 0}, "--passes must be at least 1"),
        ({"rounds": -1}, "--rounds must be at least 0"),
        ({"length_scale": 0.0}, "--length-scale must be in"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingConfig(**options)


def test_utterances_that_cannot_be_are_refused(loaded: LoadedModel) -> None:
    fields = loaded.fields
    asr, tts = loaded.predictor("asr"), loaded.predictor("tts")
    with pytest.raises(CorpusError, match="x: has no text"):
        tts.request(fields.record({"id": "x", "text": "  "}))
    with pytest.raises(CorpusError, match=r"x: .*not in block 'unit'"):
        fields.record({"id": "x", "units": [0, 99]})
    with pytest.raises(CorpusError, match=r"x: 8000 frames, the model's context is \d+"):
        asr.request(fields.record({"id": "x", "units": [1, 2] * 2000}))
    with pytest.raises(ConfigError, match="--prefix"):
        asr.request(fields.record(TABLE[0]), prefix=2)
    long = tts.request(fields.record({"id": "x", "text": "one " * 200}))
    (one,) = tts.predict([long])
    assert one.truncated
    assert one.units is not None


def test_texts_longer_than_their_speech_are_counted(learnt: Path, tmp_path: Path) -> None:
    table = [row | {"text": "one " * 30} if n % 2 else row for n, row in enumerate(TABLE)]
    shards = write_shards(tmp_path / "tokens", table)
    out = tmp_path / "run"
    words = ["--config", "t2v2-tiny", "--upsample", "2", "--tokens", str(shards), "--steps", "2"]
    words += ["--out", str(out), "--tasks", "asr", "--log-every", "1", "--threads", "1"]
    assert lm_train.main([*words, "--device", "cpu", "--warmup-steps", "1"]) == 0
    first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < first["parts"]["left_out"] < 1
    assert np.isfinite(first["loss"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "st", "--no-conditions"], "--tasks st needs languages"),
        (["--features", "f"], "--features: T2V2 reads units and text only"),
        (["--upsample", "0"], "upsample must be at least 1"),
    ],
)
def test_trainings_that_cannot_be_are_refused(
    learnt: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["--config", "t2v2-tiny", "--tokens", str(learnt.parent / "tokens")]
    assert lm_train.main([*start, "--out", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err
