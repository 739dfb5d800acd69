"""Recognition and synthesis one utterance at a time: decoder-only beside non-autoregressive.

``python -m unitone.eval.bench.families`` gives random weights to a size of either family, with
about as many parameters, and the same work: so many units in, so many text tokens out, and back.
With ``--models`` and ``--tokens`` it times trained models on utterances of the shards instead, each
decoding as it does by default, and ``--out`` keeps the figures with bootstrap intervals.

Synthesis is from text to units; the unit decoder, which the families share, is not in it.
"""

from dataclasses import dataclass
from pathlib import Path

from unitone import program
from unitone.config import command_line
from unitone.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FamiliesConfig:
    decoder: str = "lm-small"
    """Size of the decoder-only model."""
    nar: str = "t2v2-small"
    """Size of the non-autoregressive model."""
    units: int = 150
    """Units of the utterance."""
    text: int = 30
    """Tokens of its text."""
    models: tuple[Path, ...] = ()
    """Model directories to time instead, the decoder-only one first."""
    tokens: Path | None = None
    """Token shards, for ``models``."""
    split: str = "test"
    """Their split."""
    utterances: int = 20
    """Of the split, the first."""
    out: Path | None = None
    """JSON file for the figures of ``models``."""
    threads: int = 2
    repeats: int = 5
    """The least of so many runs counts."""

    def __post_init__(self) -> None:
        if bool(self.models) != (self.tokens is not None):
            raise ConfigError("--models and --tokens go together")
        if self.out is not None and not self.models:
            raise ConfigError("--out keeps the figures of --models; give them, or leave it out")


def bench(config: FamiliesConfig) -> None:
    """Time either family and print the table."""
    from unitone.eval.jobs import families as job

    job.bench(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(FamiliesConfig, argv, __doc__)
    return program.run(lambda: bench(config))


if __name__ == "__main__":
    raise SystemExit(main())
