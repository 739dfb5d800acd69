"""Command lines and configurations: what is read before the rest, and what is refused."""

from dataclasses import dataclass, field

import pytest

from unitone.config import command_line, from_dict, option_value
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


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--model", "m", "--task", "asr"], "m"),
        (["--task", "asr", "--model=m=1"], "m=1"),
        (["--model", "a", "--model", "b"], "a"),
        (["--model"], ""),
        (["--models", "m"], None),
        (["model", "m"], None),
        ([], None),
    ],
)
def test_an_option_is_read_before_the_rest(words: list[str], value: str | None) -> None:
    assert option_value(words, "--model") == value


def test_an_option_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lm.decode", "--model", "m"])
    assert option_value(None, "--model") == "m"
