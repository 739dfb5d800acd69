"""How long commands take to begin, beside ``import torch`` and the work that they do.

``python -m unitone.eval.bench.startup --tour exp/tour``: every command in a process of its own, the
median of ``--repeats``; the work is the same call a second time in one process. Goal: 1.3 times
their sum. ``--help`` has to answer within a second.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unitone.config import command_line

GOAL = 1.3
HELP_GOAL = 1.0
HELPED = ("transcribe", "train", "decode", "build", "encode", "vocoder", "judge", "wer", "tour")
TWICE = """
import contextlib, io, json, sys, time
from unitone import cli
for words in map(json.loads, sys.argv[1:]):
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(words) == 0, words
print(time.perf_counter() - started)
"""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    tour: Path = Path("exp/tour")
    """Folder of a tour, for its model, corpus and tokenizer."""
    repeats: int = 3


def main(argv: list[str] | None = None) -> int:
    """Print the table; return 1 if a goal is missed."""
    config = command_line(BenchConfig, argv, __doc__)
    if not (config.tour / "corpus" / "manifest.jsonl").is_file():
        print(f"--tour {config.tour}: no finished tour there; make tour first")
        return 2
    torch = _median(config, lambda: [sys.executable, "-c", "import torch"])
    print(f"import torch {torch:.2f} s; medians of {config.repeats}")
    print(f"{'':12}{'seconds':>9}{'work':>7}{'ratio':>7}")
    good = True
    with tempfile.TemporaryDirectory() as name:
        for command, words in _commands(config.tour, _Fresh(Path(name))).items():
            seconds = _median(config, words, before=_UNITONE)
            work = _work(words)
            ratio = seconds / (torch + work)
            good &= ratio <= GOAL
            print(f"{command:12}{seconds:9.2f}{work:7.2f}{ratio:7.2f}")
    print(f"{'--help of':12}{'seconds':>9}")
    for command in HELPED:
        seconds = _median(config, partial(list, (*_UNITONE, command, "--help")))
        good &= seconds <= HELP_GOAL
        print(f"{command:12}{seconds:9.2f}")
    return int(not good)


_UNITONE = (sys.executable, "-m", "unitone")

Words = Callable[[], list[str]]


class _Fresh:
    """Makes names of outputs that aren't there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0

    def path(self, suffix: str = "") -> str:
        """Return another one."""
        self._number += 1
        return str(self.folder / f"{self._number}{suffix}")


def _commands(tour: Path, fresh: _Fresh) -> dict[str, Words]:
    """Return the commands on one recording; each call names an output of its own."""
    corpus = tour / "corpus" / "manifest.jsonl"
    with corpus.open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    recording = corpus.parent / rows[0]["audio"]
    one = fresh.folder / "one.jsonl"
    one.write_text(json.dumps(rows[0] | {"audio": str(recording.resolve())}), encoding="utf-8")
    model = ("--model", str(tour / "lm" / "best"))
    text = "two dogs are playing"
    scored = ["--ref", str(corpus), "--split", "test", "--hyp"]
    tokenizer = ["--tokenizer", str(tour / "tokenizer"), "--manifest", str(one)]
    mfcc = ["--ssl", "mfcc", "--k", "20", "--unit-subwords", "0", "--manifest", str(one)]
    return {
        "transcribe": lambda: ["transcribe", str(recording), *model],
        "speak": lambda: ["speak", text, "--language", "en", *model, "--out", fresh.path(".wav")],
        "translate": lambda: ["translate", text, "--to", "de", *model],
        "build": lambda: ["build", *mfcc, "--out", fresh.path()],
        "encode": lambda: ["encode", *tokenizer, "--out", fresh.path()],
        "wer": lambda: ["wer", *scored, str(tour / "hyp" / "asr.jsonl")],
        "bleu": lambda: ["bleu", *scored, str(tour / "hyp" / "mt.jsonl")],
    }


def _median(config: BenchConfig, command: Words, *, before: Sequence[str] = ()) -> float:
    taken = []
    for _ in range(config.repeats):
        words = [*before, *command()]
        started = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _work(words: Words) -> float:
    given = [json.dumps(words()), json.dumps(words())]
    done = subprocess.run([sys.executable, "-c", TWICE, *given], check=True, capture_output=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
