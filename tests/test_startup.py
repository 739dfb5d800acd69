"""Commands answer at once: what ``--help`` and a mistyped option may import, and how long it takes.

`tests/lm/test_inference_imports.py` says what inference may not import.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("tokenizers", "codecs", "lm", "eval", "recipes", "unitone/corpus")
HEAVY = (
    *("torch", "faiss", "lhotse", "matplotlib", "pyarrow", "ray", "sacrebleu", "scipy", "sklearn"),
    *("soundfile", "soxr", "sympy", "transformers"),
)
MEASUREMENTS = ("unitone.eval.bench.", "unitone.recipes.unit_costs")
"""What measures torch may import it."""

PROBE = f"""
import contextlib, importlib, io, json, sys
for module in sys.argv[1:]:
    statuses = []
    for options in (["--help"], ["--no-such-option"]):
        sink = io.StringIO()
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            try:
                statuses.append(importlib.import_module(module).main(options))
            except SystemExit as stop:
                statuses.append(stop.code)
    heavy = sorted(name for name in {HEAVY} if name in sys.modules)
    print(json.dumps([module, statuses, heavy]))
    if heavy:
        break
"""


def commands() -> list[str]:
    """Return every module that ``python -m`` runs, by its importable name."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "def main(argv" in path.read_text(encoding="utf-8"):
                name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
                found.append(name if name.startswith("unitone.") else f"unitone.{name}")
    return [*found, "unitone.doctor"]


def run(*words: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_and_a_wrong_option_import_nothing_heavy() -> None:
    """One process for all: what is heavy must not be there after any of them."""
    wanted = [name for name in commands() if not name.startswith(MEASUREMENTS)]
    assert len(wanted) >= 30
    lines = [json.loads(line) for line in run("-c", PROBE, *wanted).splitlines()]
    assert {module: heavy for module, _, heavy in lines if heavy} == {}
    assert [module for module, _, _ in lines] == wanted
    assert {module: statuses for module, statuses, _ in lines if statuses[0] != 0} == {}
    without_options = {"unitone.doctor"}
    wrong = {module: statuses[1] for module, statuses, _ in lines if statuses[1] != 2}
    assert wrong.keys() <= without_options, wrong


@pytest.mark.parametrize("command", ["train", "decode", "build", "encode", "wer", "tour"])
def test_help_takes_less_than_a_second(command: str) -> None:
    """Of the processor, so that other work on the machine doesn't count; torch takes more."""
    code = (
        "import sys, time; from unitone import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: print(time.process_time())"
    )
    seconds = min(float(run("-c", code, command, "--help").splitlines()[-1]) for _ in range(2))
    assert seconds < 1.5
