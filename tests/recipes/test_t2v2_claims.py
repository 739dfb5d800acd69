"""The claims of T2V2's paper: that every setting has its baseline, and what the table says."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from unitone.config import command_line
from unitone.lm.decode import DecodeConfig
from unitone.lm.options import LmConfig
from unitone.lm.t2v2.options import DecodingConfig, Options
from unitone.recipes.experiments import t2v2_claims as claims
from unitone.recipes.experiments.t2v2_claims import ClaimsConfig
from unitone.recipes.tour.stages import SCORED


def test_a_setting_differs_from_its_baseline_in_one_thing() -> None:
    by_name = {one.name: one for one in claims.SETTINGS}
    assert len(by_name) == len(claims.SETTINGS)
    for one in claims.SETTINGS:
        if one.baseline is None:
            continue
        other = by_name[one.baseline]
        assert other.task == one.task
        assert (one.training != other.training) + (one.decoding != other.decoding) == 1


def test_every_command_is_one_that_a_user_can_type() -> None:
    generic: dict[str, Any] = {
        "lm.train": LmConfig[Options],
        "lm.decode": DecodeConfig[DecodingConfig],
    }
    found = list(claims.steps(ClaimsConfig(seeds=(3, 4), compile=False)))
    assert sum(step.module == "lm.train" for step in found) == 2 * len(claims.TRAININGS)
    assert len({str(step.config) for step in found}) == len(found)
    for step in found:
        module, *options = shlex.split(step.command.removeprefix("python -m "))
        kind: Any = generic.get(module, type(step.config))
        assert command_line(kind, options, None) == step.config


def test_differences_are_taken_seed_by_seed(tmp_path: Path) -> None:
    config = ClaimsConfig(out=tmp_path, seeds=(0, 1, 2), trainings=("whole",))
    values = {"CTC": (0.30, 0.40, 0.50), "correction, threshold 0.7, rounds 8": (0.29, 0.38, 0.49)}
    for step in claims.steps(config):
        if step.module == "lm.decode":
            continue
        folder = getattr(getattr(step.config, "scoring", None), "out", None)
        if folder is None:
            continue
        folder.mkdir(parents=True)
        task = "asr" if "synth" not in folder.name and "pass" not in folder.name else "tts"
        seed = int(folder.parent.parent.name.removeprefix("seed-"))
        name = next((one for one in values if claims._slug(one) == folder.name), "")
        rate = values[name][seed] if name else 0.2
        score = {"wer": rate} if task == "asr" else {"synthesised": {"cer": rate}}
        (folder / SCORED[task].file).write_text(json.dumps(score))
    found = {one.setting.name: one for one in claims.collect(config)}
    corrected = found["correction, threshold 0.7, rounds 8"]
    assert corrected.differences == pytest.approx([-1.0, -2.0, -1.0])
    low, high = corrected.around()  # Student's for three: 4.303 x 0.577 / sqrt(3)
    assert (low, high) == pytest.approx((-4 / 3 - 1.434, -4 / 3 + 1.434), abs=2e-3)
    assert found["CTC"].differences == []
    text = claims.table(list(found.values()))
    assert "| 38.7 | 29.0, 38.0, 49.0 | CTC | -1.3 | -2.8 to +0.1 |" in text
    assert "<svg" in claims.plot(list(found.values()))


def test_seeds_are_more_than_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        claims.main(["--seeds", "1"])
    assert "--seeds" in capsys.readouterr().err
