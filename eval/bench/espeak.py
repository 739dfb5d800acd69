"""How fast the embedded corpus is made, against the goal of 300 times real time a core.

    python -m unitone.eval.bench.espeak

Counts everything a user waits for: starting Python, drawing sentences, speaking, resampling, FLAC,
the manifest. "A core" divides by CPU seconds, those of eSpeak NG's processes included, so it
does not depend on what else the machine does; "wall" divides by the clock.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from unitone import program
from unitone.config import command_line
from unitone.errors import UnitoneError

GOAL = 300
"""Times real time a core."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    utterances: int = 2_000
    """About an hour of speech."""
    workers: tuple[int, ...] = field(default_factory=lambda: (1, os.cpu_count() or 1))
    """The numbers of workers to try, one run each."""


@dataclass(frozen=True)
class Timing:
    workers: int
    audio: float
    """Seconds of speech."""
    cpu: float
    """CPU seconds of the command and its children."""
    wall: float

    @property
    def line(self) -> str:
        """A row of the table."""
        core = self.audio / self.cpu
        return (
            f"{self.workers:>7}  {self.audio / 3600:>6.2f} h  {self.cpu:>7.2f}  {self.wall:>7.2f}"
            f"  {core:>8.0f}x  {self.audio / self.wall:>8.0f}x  {core / GOAL:>6.2f}"
        )


def measure(utterances: int, workers: int) -> Timing:
    """Make a corpus in a temporary folder by the command line and time it."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "corpus"
        command = [sys.executable, "-m", "unitone", "espeak", "--out", str(out)]
        command += ["--utterances", str(utterances), "--workers", str(workers)]
        before, start = _cpu_of_children(), time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wall, cpu = time.perf_counter() - start, _cpu_of_children() - before
        if result.returncode != 0:
            raise UnitoneError(f"the espeak command failed: {result.stderr.strip()}")
        with (out / "manifest.jsonl").open(encoding="utf-8") as manifest:
            audio = sum(json.loads(line)["duration"] for line in manifest)
    return Timing(workers, audio, cpu, wall)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def bench(config: BenchConfig) -> None:
    """Print the table."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("workers   audio    CPU s   wall s   a core       wall    ratio to 300x a core")
    for workers in dict.fromkeys(config.workers):
        print(measure(config.utterances, workers).line, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark that the command line asks for."""
    config = command_line(BenchConfig, argv, __doc__)
    return program.run(lambda: bench(config))


if __name__ == "__main__":
    sys.exit(main())
