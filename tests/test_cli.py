"""The ``unitone`` door: quick, free of torch, and helpful about a wrong word."""

import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import unitone
from unitone import cli

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "numpy", "lhotse", "faiss", "pyarrow", "transformers", "tyro", "argparse")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unitone", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_lists_every_command() -> None:
    answer = run("--help")
    assert answer.returncode == 0
    assert not answer.stderr
    for name, (_, line) in cli.COMMANDS.items():
        assert f"  {name} " in answer.stdout
        assert line in answer.stdout


def test_help_answers_in_under_300_ms() -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run("--help")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3  # the best of five: other programs may be running


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from unitone import cli; cli.main(['--help']); "
        f"sys.exit(','.join(name for name in {HEAVY} if name in sys.modules))"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.stderr.strip() == ""


def test_without_a_command_it_shows_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: unitone COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"unitone {unitone.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("ecnode", "encode"), ("docter", "doctor"), ("feature", "features"), ("--hlep", "--help")],
)
def test_an_unknown_command_is_usage_with_a_guess(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([typed]) == 2
    assert f"{typed!r}; did you mean {meant}?" in capsys.readouterr().err


def test_a_far_off_command_gets_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["zzz"]) == 2
    message = capsys.readouterr().err
    assert "did you mean" not in message
    assert "encode" in message


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_is_a_module(name: str) -> None:
    assert find_spec(cli.COMMANDS[name][0]) is not None


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = cli.main([name, "--help"])
    except SystemExit as stop:  # argparse and tyro end that way
        status = int(stop.code or 0)
    assert status == 0
    assert f"unitone {name}" in capsys.readouterr().out


def test_every_stage_is_a_command() -> None:
    """Whatever is run by ``python -m`` in a room; benchmarks and recipes aside."""
    parts = {"unitone.eval.judge_train", "unitone.eval.judge_score"}  # of `unitone judge`
    known = {module for module, _ in cli.COMMANDS.values()} | parts
    stages = {
        f"unitone.{room}.{path.stem}"
        for room in ("tokenizers", "codecs", "lm", "eval")
        for path in (ROOT / room).glob("*.py")
        if "def main(argv" in path.read_text(encoding="utf-8")
    }
    assert stages - known == set()
    assert {"train", "synthesize", "perturb"} <= cli.COMMANDS.keys()
