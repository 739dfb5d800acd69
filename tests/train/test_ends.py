"""How a training ends, and what a second start in its folder finds."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.train.test_trainer import Source, config, curve, raises, spoilt, train
from unitone.errors import ConfigError, UnitoneError


def test_the_end_says_where_the_models_are_and_a_second_start_that_all_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    parts: dict[str, Any] = {"validate": lambda step: {"loss": 1.0}, "save_model": lambda out: None}
    train(tmp_path, config(best="loss"), **parts)
    where = f"models in {tmp_path / 'best'} and {tmp_path / 'last'}, curves in"
    assert f"{tmp_path} is trained, 20 steps in " in caplog.text
    assert where in caplog.text
    assert "nothing was left" not in caplog.text
    caplog.clear()
    capsys.readouterr()
    train(tmp_path, config(best="loss"), **parts)
    assert where in caplog.text
    assert "nothing was left to do; a larger --steps prolongs the run" in caplog.text
    assert "train from step" not in capsys.readouterr().err


def test_a_run_that_lost_its_checkpoints_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    train(tmp_path, config())
    shutil.rmtree(tmp_path / "checkpoints")
    before = curve(tmp_path)
    with pytest.raises(ConfigError, match=r"got to step 20, and none of its checkpoints: put them"):
        train(tmp_path, config())
    assert curve(tmp_path) == before


def test_a_finished_run_without_checkpoints_keeps_its_model(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        (folder / "model").write_text("old")

    train(tmp_path, config(steps=3), save_model=save)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ConfigError, match="none of its checkpoints"):
        train(tmp_path, config(steps=3), save_model=lambda folder: None)
    assert (tmp_path / "last" / "model").read_text() == "old"


def test_a_run_killed_before_its_first_checkpoint_begins_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OSError, match="gone"):
        train(tmp_path, config(), source=Source(at=4, happens=raises(OSError("the disk is gone"))))
    train(tmp_path, config())
    assert "got to step 3 without a checkpoint; it begins anew" in caplog.text
    assert [record["step"] for record in curve(tmp_path)] == list(range(1, 21))


@pytest.mark.parametrize(
    ("at", "said"),
    [(3, "there is no checkpoint yet: begin anew"), (8, "step-00000005, is still there")],
)
def test_the_message_of_a_bad_loss_says_whether_there_is_a_checkpoint(
    tmp_path: Path, at: int, said: str
) -> None:
    with pytest.raises(UnitoneError, match=said):
        train(tmp_path, config(), source=Source(at=at, happens=spoilt(float("nan"))))


def test_the_last_steps_are_logged(tmp_path: Path) -> None:
    train(tmp_path, config(steps=7, log_every=5))
    assert [record["step"] for record in curve(tmp_path)] == [5, 7]
    train(tmp_path, config(steps=7, log_every=5))
    assert [record["step"] for record in curve(tmp_path)] == [5, 7]
