"""Recordings to token shards: ``python -m tokenizers.encode --tokenizer T --manifest M --out OUT``.

Encoder and nearest centroid run together; features never leave the process. The job may be killed
at any moment and run again: it goes on after the last finished utterance and writes the same
bytes.
"""

from dataclasses import dataclass
from pathlib import Path

from unitone import program
from unitone.config import command_line
from unitone.corpus.reading import ReadingConfig
from unitone.tokenizers.engines import Engine
from unitone.tokenizers.options import Format


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    tokenizer: Path
    """Directory that ``python -m tokenizers.build`` wrote."""
    out: Path
    """Directory for the shards."""
    reading: ReadingConfig
    ssl: str | None = None
    """The encoder, where it lies elsewhere than when the tokenizer was built; its weights must be
    the same."""
    format: tuple[Format, ...] = ()
    """Also write these: fairseq (.km, .tsv, dict.km.txt), espnet (unit text), jsonl."""
    engine: Engine = "local"
    """local: this process. ray: the actors of a Ray cluster (RAY_ADDRESS, or one made here)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int | None = None
    """CPU threads of the encoder in each process."""
    shard_size: int = 1024
    """Manifest entries per Parquet file."""


def encode(config: EncodeConfig) -> None:
    """Encode a corpus; do only what is missing in ``config.out``."""
    from unitone.tokenizers.jobs import encode as job

    job.encode(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(EncodeConfig, argv, __doc__)
    return program.run(lambda: encode(config))


if __name__ == "__main__":
    raise SystemExit(main())
