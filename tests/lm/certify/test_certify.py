"""``unitone certify``: nothing wrong in the smallest size of each family; its output and errors."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lm.conftest import rows
from unitone.lm import families
from unitone.lm.certify import certificate
from unitone.lm.certify.certificate import CHECKS
from unitone.lm.certify.command import main
from unitone.lm.certify.setup import LmSetUp
from unitone.train.certify.setup import Finding

ROOT = Path(__file__).resolve().parents[3]
QUICK = ["--device", "cpu", "--threads", "1"]
SMALLEST = [next(iter(families.module(name, "options").SIZES)) for name in families.names()]
AT_ONCE = {"packing", "targets", "tasks", "causality"}
"""What there is nothing of where all of an output is predicted at once, in rows of one example."""


@pytest.mark.parametrize("size", SMALLEST)
@pytest.mark.usefixtures("one_thread")
def test_the_smallest_size_is_certified(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    at_once = size.startswith("t2v2")
    packing = [] if at_once else ["--packing"]
    status = main(["--config", size, *packing, "--dropout", "0.1", *QUICK])
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, "\n".join(lines)
    held = [line.split()[1] for line in lines if line.startswith("holds")]
    assert held == [name for name in CHECKS if name not in (AT_ONCE if at_once else ())]
    assert lines[-1].startswith(f"{len(held)} of {len(CHECKS)} hold")


@pytest.mark.parametrize(
    "options", [("--ctc", "0.3"), ("--table", "polyspeech"), ("--table", "codes")], ids=" ".join
)
@pytest.mark.usefixtures("one_thread")
def test_two_processes_are_one_whatever_speech_is(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With a loss that only recognition has, with continuous features, and with codes."""
    status = main(["--config", SMALLEST[0], *options, *QUICK, "--checks", "ddp", "fsdp"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert out.splitlines()[-1] == "2 of 2 hold"


@pytest.mark.usefixtures("one_thread")
def test_it_takes_the_shards_of_the_user(
    make_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shards = make_shards(rows(16))
    options = ["--data", str(shards), "--tasks", "asr", "st", "--json", *QUICK]
    assert main(["--config", "lm-tiny", *options, "--checks", "neighbours", "targets"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["set-up"]["tasks"] == ["asr", "st"]
    assert found["set-up"]["utterances"] == 12  # of split train
    assert found["failed"] == []
    assert found["checks"].keys() == {"neighbours", "targets"}
    assert found["checks"]["targets"]["passed"] is True


@pytest.mark.usefixtures("one_thread")
def test_what_fails_is_said_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(setup: LmSetUp) -> Finding:
        return Finding(what="two is one", figure="2 and 1", passed=False, cure="count again")

    def breaks(setup: LmSetUp) -> Any:
        raise RuntimeError("no such weight\nand so on")

    monkeypatch.setattr(certificate, "CHECKS", {"count": fails, "broken": breaks})
    assert main(["--config", "lm-tiny", *QUICK]) == 1
    out = capsys.readouterr().out
    assert "FAILS  count         two is one" in out
    assert "cure: count again" in out
    assert "RuntimeError: no such weight\n" in out
    assert out.splitlines()[-1] == "2 of 2 fail: count, broken"


def test_what_cannot_be_trained_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "lm-tiny", "--tasks", "asr", "--ctc", "-1", *QUICK]) == 2
    assert "--ctc must be 0 or more" in capsys.readouterr().err
    assert main(["--config", "lm-tiny", "--checks", "orders", *QUICK]) == 2
    assert re.search(r"--checks orders: there are .*nearest is order", capsys.readouterr().err)


def test_the_page_shows_every_check() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert re.findall(r"^holds  (\w+)", page, re.MULTILINE) == [*CHECKS]
