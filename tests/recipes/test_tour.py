"""The tour's commands: that they are whole and in order; and, slowly, that a small one runs."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from unitone.config import command_line
from unitone.lm.decode import DecodeConfig
from unitone.lm.decoder.options import DecoderConfig, DecodingConfig
from unitone.lm.options import LmConfig
from unitone.lm.t2v2 import options as t2v2
from unitone.recipes.steps import Step
from unitone.recipes.tour import stages, tour
from unitone.recipes.tour.stages import Training
from unitone.recipes.tour.tour import TourConfig

SMALL = (
    "--utterances 120 --judge-utterances 36 --k 20 --text-subwords 300 --lm lm-tiny --lm-seconds 5 "
    "--nar t2v2-tiny --nar-seconds 5 --decoder-seconds 3 --judge-seconds 3 --spoken 3 --no-compile"
)


def test_every_task_is_decoded_and_scored_in_order() -> None:
    found = list(tour.steps(TourConfig(training=Training(compile=False))))
    modules = [step.module for step in found]
    assert modules[:6] == [
        *("recipes.espeak", "tokenizers.build", "tokenizers.encode"),
        *("unitone.codecs.train", "lm.train", "lm.train"),
    ]
    decoded = [step.config.out.relative_to("exp/tour/hyp") for step in found if _decodes(step)]
    both = ["asr", "tts", "st", "mt", "lid", "gid"]
    names = [*both, "continue", *(f"t2v2/{task}" for task in stages.NAR_TASKS)]
    assert sorted(map(str, decoded)) == sorted(f"{name}.jsonl" for name in names)
    scored = [step.config.scoring for step in found[-11:-1]]
    alone = [one.hyp for one in scored if one.against is None]
    assert [path.stem for path in alone] == ["asr", "st", "mt", "lid", "gid", "tts"]
    compared = [one for one in scored if one.against is not None]
    assert sorted(one.hyp.stem for one in compared) == sorted(stages.NAR_TASKS)
    assert all(one.against in alone and one.hyp.parent.name == "t2v2" for one in compared)
    assert found[-1].module == "eval.bench.families"


def _decodes(step: Step[Any]) -> bool:
    return step.module == "lm.decode"


def test_every_command_is_one_that_a_user_can_type() -> None:
    generic: dict[str, tuple[Any, Any]] = {
        "lm.train": (DecoderConfig, LmConfig[t2v2.Options]),
        "lm.decode": (DecodeConfig[DecodingConfig], DecodeConfig[t2v2.DecodingConfig]),
    }
    for step in tour.steps(TourConfig()):
        module, *options = shlex.split(step.command.removeprefix("python -m "))
        assert module == step.module
        kind: Any = type(step.config)
        if module in generic:
            kind = generic[module]["t2v2" in step.command]
        assert command_line(kind, options, None) == step.config


def test_a_wrong_option_is_found_before_the_work(tmp_path: Path) -> None:
    assert tour.main(["--out", str(tmp_path / "tour"), "--k", "1"]) == 2
    assert not (tmp_path / "tour").exists()


def test_an_old_option_is_refused_with_its_new_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tour.main(["--text-pieces", "300"])
    assert "--text-subwords" in capsys.readouterr().err


def test_training_takes_minutes() -> None:
    config = TourConfig()
    assert config.lm_seconds + config.decoder_seconds + config.judge_seconds <= 12 * 60
    assert config.lm_seconds + config.nar_seconds <= 15 * 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_small_tour_ends_in_a_report(tmp_path: Path) -> None:
    out = tmp_path / "tour"
    assert tour.main(["--out", str(out), *SMALL.split()]) == 0
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "audio" in html
    for name in ("asr/wer", "st/bleu", "mt/bleu", "lid/classify", "gid/classify", "tts/judge"):
        assert json.loads((out / "scores" / f"{name}.json").read_text())
        if name.split("/")[0] in stages.NAR_TASKS:
            assert json.loads((out / "scores" / "t2v2" / f"{name}.json").read_text())
    assert (out / "lm" / "best" / "decoder").is_dir()
    assert "Two families" in html
    before = (out / "hyp" / "asr.jsonl").read_bytes()
    assert tour.main(["--out", str(out), *SMALL.split()]) == 0
    assert (out / "hyp" / "asr.jsonl").read_bytes() == before
