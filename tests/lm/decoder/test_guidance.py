"""Guidance needs a model that has seen prompts without their condition, and settings numbers."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.lm.conftest import World, rows
from unitone.errors import ConfigError
from unitone.lm import family
from unitone.lm import train as lm_train
from unitone.lm.decoder.options import DecodingConfig
from unitone.lm.decoder.predictor import open_predictor
from unitone.lm.decoder.template import Decoding, check

MakeShards = Callable[..., Path]


def train(shards: Path, out: Path, *options: str) -> int:
    words = ["--tokens", str(shards), "--out", str(out), "--config", "lm-tiny", "--tasks", "asr"]
    words += ["--steps", "1", "--valid-split", "none", "--threads", "1", "--device", "cpu"]
    return lm_train.main([*words, *options])


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_model_knows_whether_conditions_were_dropped_in_its_training(
    make_shards: MakeShards, tmp_path: Path, share: float
) -> None:
    assert train(make_shards(rows(12)), tmp_path / "run", "--null-share", str(share)) == 0
    stored = json.loads((tmp_path / "run" / "last" / "config.json").read_text())
    assert stored["unitone"]["null_share"] == share
    loaded = family.load(tmp_path / "run", device="cpu")
    assert loaded.null_share == share
    guided = DecodingConfig(guidance=2.0)
    if share:
        open_predictor(loaded, "asr", config=guided)
    else:
        with pytest.raises(ConfigError, match="--guidance 2: this model was trained without"):
            open_predictor(loaded, "asr", config=guided)
        open_predictor(loaded, "asr", config=DecodingConfig(guidance=1.0))


def test_of_an_older_model_it_is_not_known(world: World) -> None:
    loaded = family.load(world.model, device="cpu")
    assert loaded.null_share is None
    open_predictor(loaded, "asr", config=DecodingConfig(guidance=2.0))


def test_a_row_with_guidance_is_refused_by_a_training_without_dropped_conditions(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row: dict[str, Any] = {
        "name": "asr",
        "template": "{units} <sep> [ {text} <eos> ]",
        "emits": ["text"],
    }
    row |= {"metric": "wer", "decoding": {"guidance": 1.5}}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    options = ["--rows", str(tmp_path / "rows.json")]
    shards = make_shards(rows(12))
    assert train(shards, tmp_path / "run", *options) == 2
    assert "--guidance 1.5: this model was trained without" in capsys.readouterr().err
    assert train(shards, tmp_path / "run", *options, "--null-share", "0.2") == 0


@pytest.mark.parametrize("name", [one.name for one in fields(Decoding) if one.type is float])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_setting_that_is_no_number_is_refused(name: str, value: float) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"decoding: {name} must be a finite number"):
        check(replace(Decoding(temperature=1.0), **given))
