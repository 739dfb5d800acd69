"""Command lines: what is read of them before the rest, and what is refused."""

import pytest

from unitone.config import option_value


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
