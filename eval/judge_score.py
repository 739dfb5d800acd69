"""Intelligibility of synthesized speech, by the ASR judge: ``python -m eval.judge score``.

    python -m eval.judge score --judge exp/judge --ref manifest.jsonl --hyp hyp.jsonl --out scores

The ASR judge transcribes the synthesized audio of the hypotheses ("audio", relative to their file;
null where there is none) and the real recordings of the same sentences. Character and word error
rates of both, the real ones being the ground-truth CER and WER, and the difference, each with a
95 % bootstrap interval. Writes ``judge.json`` (rates as shares of 1), ``judge.html`` and
``utterances.jsonl`` into ``--out``.
"""

from dataclasses import dataclass
from pathlib import Path

from unitone import program
from unitone.config import command_line
from unitone.eval.scoring import ScoringConfig


@dataclass(frozen=True, kw_only=True)
class JudgeScoreConfig:
    judge: Path
    """Model directory, or run, of ``python -m eval.judge train``."""
    scoring: ScoringConfig
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def score(config: JudgeScoreConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    from unitone.eval.jobs import judge_score as job

    job.score(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(JudgeScoreConfig, argv, __doc__)
    return program.run(lambda: score(config))


if __name__ == "__main__":
    raise SystemExit(main())
