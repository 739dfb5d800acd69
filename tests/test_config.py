"""Configurations: what is no number is none, wherever it is given."""

from dataclasses import dataclass, field

import pytest

from unitone.config import command_line, from_dict
from unitone.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    length_penalty: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    lr: float = 0.1
    betas: tuple[float, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    "words",
    [
        ["--lr", "nan"],
        ["--lr=-inf"],
        ["--betas", "0.9", "inf"],
        ["--weights", "asr", "nan"],
        ["--length-penalty", "nan"],
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_every_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command_line(Outer, words, None)
    option = words[0].partition("=")[0]
    assert f"error: {option} must be a finite number, got" in capsys.readouterr().err


def test_a_file_may_not_hold_one_either() -> None:
    with pytest.raises(ConfigError, match="rows: lr must be a finite number, got nan"):
        from_dict(Outer, {"lr": float("nan")}, where="rows")
