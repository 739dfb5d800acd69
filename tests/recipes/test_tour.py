"""The tour's commands: that they are whole and in order; and, slowly, that a small one runs."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from unitone.config import command_line
from unitone.lm.decode import DecodeConfig
from unitone.lm.decoder.options import DecoderConfig, DecodingConfig
from unitone.recipes.tour import tour
from unitone.recipes.tour.stages import Training
from unitone.recipes.tour.tour import TourConfig

SMALL = (
    "--utterances 120 --judge-utterances 36 --k 20 --text-subwords 300 --lm lm-tiny --lm-seconds 5 "
    "--decoder-seconds 3 --judge-seconds 3 --spoken 3 --no-compile"
)


def test_every_task_is_decoded_and_scored_in_order() -> None:
    found = list(tour.steps(TourConfig(training=Training(compile=False))))
    modules = [step.module for step in found]
    assert modules[:5] == [
        *("recipes.espeak", "tokenizers.build", "tokenizers.encode"),
        *("unitone.codecs.train", "lm.train"),
    ]
    decoded = [step.config.task for step in found if step.module == "lm.decode"]
    assert sorted(decoded) == sorted(["asr", "tts", "st", "mt", "lid", "gid", "continue"])
    scored = [step.config.scoring.hyp.stem for step in found[-6:]]
    assert scored == ["asr", "st", "mt", "lid", "gid", "tts"]


def test_every_command_is_one_that_a_user_can_type() -> None:
    generic: dict[str, Any] = {
        "lm.train": DecoderConfig,
        "lm.decode": DecodeConfig[DecodingConfig],
    }
    for step in tour.steps(TourConfig()):
        module, *options = shlex.split(step.command.removeprefix("python -m "))
        assert module == step.module
        assert command_line(generic.get(module, type(step.config)), options, None) == step.config


def test_a_wrong_option_is_found_before_the_work(tmp_path: Path) -> None:
    assert tour.main(["--out", str(tmp_path / "tour"), "--k", "1"]) == 2
    assert not (tmp_path / "tour").exists()


def test_an_old_option_is_refused_with_its_new_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tour.main(["--text-pieces", "300"])
    assert "--text-subwords" in capsys.readouterr().err


def test_training_takes_twelve_minutes_at_most() -> None:
    config = TourConfig()
    seconds = config.lm_seconds + config.decoder_seconds + config.judge_seconds
    assert seconds <= 12 * 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_small_tour_ends_in_a_report(tmp_path: Path) -> None:
    out = tmp_path / "tour"
    assert tour.main(["--out", str(out), *SMALL.split()]) == 0
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "audio" in html
    for name in ("asr/wer", "st/bleu", "mt/bleu", "lid/classify", "gid/classify", "tts/judge"):
        assert json.loads((out / "scores" / f"{name}.json").read_text())
    assert (out / "lm" / "best" / "decoder").is_dir()
    before = (out / "hyp" / "asr.jsonl").read_bytes()
    assert tour.main(["--out", str(out), *SMALL.split()]) == 0
    assert (out / "hyp" / "asr.jsonl").read_bytes() == before
