"""The tour: from nothing to token shards and a report, on any laptop, without a network.

``make tour`` or ``python -m recipes.tour``. The embedded corpus is made (eSpeak NG, three
languages), an MFCC tokeniser is built on its training split, every recording is encoded, and the
quality report says how good the units are. Every step is a command a user can type; the tour prints
each before it runs. A finished step isn't done again.
"""

import json
import logging
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitone import program
from unitone.audio import SAMPLE_RATE
from unitone.config import command_line
from unitone.errors import UnitoneError
from unitone.recipes import espeak
from unitone.tokenizers import build, encode
from unitone.tokenizers.shards import TokenShards

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TourConfig:
    out: Path = Path("exp/tour")
    """Folder for everything the tour makes."""
    utterances: int = 1500
    """Size of the corpus; 1500 are about an hour."""
    k: int = 200
    """Number of units."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of the toolkit, as typed and as called."""

    module: str
    arguments: tuple[str, ...]
    main: Callable[[list[str] | None], int]

    def run(self) -> None:
        """Print the command and run it.

        Raises:
            UnitoneError: it failed; it has said why itself.
        """
        typed = f"python -m {self.module} {shlex.join(self.arguments)}"
        logger.info("\n$ %s", typed)
        started = time.perf_counter()
        status = self.main(list(self.arguments))
        if status == program.INTERRUPTED:
            raise KeyboardInterrupt
        if status != 0:
            raise UnitoneError(f"the tour stopped at: {typed}")
        logger.info("  done in %.1f s", time.perf_counter() - started)


def steps(config: TourConfig) -> list[Step]:
    """Return the tour's commands in order."""
    corpus, tokenizer, tokens = (str(config.out / n) for n in ("corpus", "tokenizer", "tokens"))
    manifest = str(config.out / "corpus" / "manifest.jsonl")
    return [
        Step(
            module="recipes.espeak",
            arguments=("--out", corpus, "--utterances", str(config.utterances)),
            main=espeak.main,
        ),
        Step(
            module="tokenizers.build",
            arguments=(
                *("--manifest", manifest, "--split", "train", "--ssl", "mfcc"),
                *("--k", str(config.k), "--out", tokenizer),
            ),
            main=build.main,
        ),
        Step(
            module="tokenizers.encode",
            arguments=(
                *("--tokenizer", tokenizer, "--manifest", manifest, "--out", tokens),
                *("--format", "jsonl"),
            ),
            main=encode.main,
        ),
    ]


def tour(config: TourConfig) -> None:
    """Run every step and say what came out."""
    started = time.perf_counter()
    for step in steps(config):
        step.run()
    shards = TokenShards(config.out / "tokens")
    report = json.loads((config.out / "tokenizer" / "report.json").read_text(encoding="utf-8"))
    row = shards[0]
    hours = shards.index["num_samples"] / SAMPLE_RATE / 3600
    logger.info("\nThe tour took %.0f s.", time.perf_counter() - started)
    logger.info("  corpus   %d utterances, %.2f hours", len(shards), hours)
    logger.info("  units    %d, %s", shards.passport.kmeans.k, headline(report))
    logger.info("  example  %s: %r", row["id"], row["text"])
    logger.info("           %s …", " ".join(map(str, row["units"][:20])))
    logger.info("  report   %s", config.out / "tokenizer" / "report.html")


def headline(report: dict[str, Any]) -> str:
    """Return the report in a line."""
    quality = report["quality"]
    streams = ", ".join(
        f"{stream['name']} {stream['bits_per_second']:.0f} bit/s" for stream in quality["streams"]
    )
    phones = quality["phones"]
    agreement = "" if phones is None else f"; PNMI with phones {phones['pnmi']:.3f}"
    return f"{quality['clusters_used']} used; {streams}{agreement}"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(TourConfig, argv, __doc__)
    return program.run(lambda: tour(config))


if __name__ == "__main__":
    raise SystemExit(main())
