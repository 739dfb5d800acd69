"""Codes for token shards: ``python -m unitone.codecs.encode --codec C --tokens T --manifest M …``.

Writes new shards with the rows of ``--tokens`` and a column more, the codes of a codec. The
recordings come from the manifest that the shards were made from, at the codec's own rate. The job
may be killed at any moment and run again: it goes on after the last finished utterance and writes
the same bytes.

Axes: Q levels, T frames.
"""

from dataclasses import dataclass
from pathlib import Path

from unitone import program
from unitone.codecs.options import LONGEST
from unitone.config import command_line
from unitone.corpus.reading import ReadingConfig
from unitone.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    codec: Path
    """Directory of a codec: EnCodec, DAC or Mimi as Transformers saves them."""
    tokens: Path
    """Shards that ``python -m tokenizers.encode`` wrote, from the same manifest and split."""
    out: Path
    """Directory for the shards with codes."""
    reading: ReadingConfig
    levels: int | None = None
    """The codec's first so many levels; default: all."""
    longest: float = LONGEST
    """Seconds; what is longer is skipped, since a codec encodes an utterance in one piece."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    def __post_init__(self) -> None:
        if not self.longest > 0:
            raise ConfigError(f"--longest must be more than 0, got {self.longest:g}")
        if self.reading.batch_seconds is not None:
            raise ConfigError("--batch-seconds: codecs encode one utterance at a time")


def encode(config: EncodeConfig) -> None:
    """Add the codes; do only what is missing in ``config.out``."""
    from unitone.codecs.jobs import encode as job

    job.encode(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(EncodeConfig, argv, __doc__)
    return program.run(lambda: encode(config))


if __name__ == "__main__":
    raise SystemExit(main())
