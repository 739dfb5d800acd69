"""``codecs.train --certify``: both heads hold, a fault is found, nothing is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitone.codecs import train
from unitone.codecs.nn.crops import CropSource
from unitone.train.certify import certificate, course
from unitone.train.certify.certificate import CHECKS

TINY = (
    *("--dim", "8", "--num-blocks", "1", "--crop-frames", "20", "--discriminator-width", "0.03"),
    *("--split", "train", "--certify", "--device", "cpu", "--precision", "fp32", "--threads", "1"),
)


def certify(stages: Any, out: Path, head: str) -> int:
    data = ["--tokens", str(stages.tokens), "--manifest", str(stages.manifest)]
    return train.main([*data, "--out", str(out), "--head", head, *TINY])


def test_its_training_is_certified(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = certify(stages, tmp_path / "out", "mel")
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, "\n".join(lines)
    assert [line.split()[1] for line in lines if line.startswith("holds")] == [*CHECKS]
    assert lines[0].startswith("unit decoder, mel head: ")
    assert not (tmp_path / "out").exists()


def test_networks_that_train_each_other_are_certified(
    stages: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is short enough: the decoder's gradients see what decay has done to a discriminator."""
    some = ("decay", "precision", "validation")
    monkeypatch.setattr(certificate, "CHECKS", {name: CHECKS[name] for name in some})
    status = certify(stages, tmp_path / "out", "istft")
    assert status == 0, capsys.readouterr().out


def test_crops_that_no_seed_decides_are_found(
    stages: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = CropSource.plan

    def drawn(self: CropSource, window: int) -> Any:
        return plan(replace(self, seed=int(np.random.default_rng().integers(2**31))), window)

    monkeypatch.setattr(certificate, "CHECKS", {"order": course.order})
    assert certify(stages, tmp_path / "out", "mel") == 0
    monkeypatch.setattr(CropSource, "plan", drawn)
    assert certify(stages, tmp_path / "out", "mel") == 1
    captured = capsys.readouterr()
    assert "FAILS  order " in captured.out
    assert "error: not certified: order\n" in captured.err
