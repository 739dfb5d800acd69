"""The tour's commands: that they are whole and in order; and, slowly, that a small one runs."""

import json
import shlex
from pathlib import Path

import pytest

from unitone.recipes.tour import tour
from unitone.recipes.tour.tour import TourConfig
from unitone.recipes.tour.training import Training

SMALL = (
    "--utterances 120 --judge-utterances 36 --k 20 --text-subwords 300 --lm lm-tiny --lm-seconds 5 "
    "--decoder-seconds 3 --judge-seconds 3 --spoken 3 --no-compile"
)


def test_every_step_is_a_command_a_user_can_type() -> None:
    found = list(tour.steps(TourConfig(training=Training(compile=False))))
    modules = [step.module for step in found]
    assert modules[:5] == [
        *("recipes.espeak", "tokenizers.build", "tokenizers.encode"),
        *("unitone.codecs.train", "lm.train"),
    ]
    decoded = [step.arguments for step in found if step.module == "lm.decode"]
    tasks = [arguments[arguments.index("--task") + 1] for arguments in decoded]
    assert sorted(tasks) == sorted(["asr", "tts", "st", "mt", "lid", "gid", "continue"])
    for step in found:
        assert shlex.split(shlex.join(step.arguments)) == list(step.arguments)


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
