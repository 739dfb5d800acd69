"""SSL features as files, for inspection: ``python -m tokenizers.features --ssl S --layer L …``.

Writes one float32 T x D ``.npy`` an utterance and ``features.jsonl``, which says which file belongs
to which id (ids may hold anything; file names are the ids percent-encoded). A file that is there
already is kept.
"""

from dataclasses import dataclass, field
from pathlib import Path

from unitone import program
from unitone.config import command_line
from unitone.corpus.reading import ReadingConfig
from unitone.tokenizers.options import ExtractorConfig


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    out: Path
    """Directory for the .npy files."""
    reading: ReadingConfig
    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)


def write_features(config: FeaturesConfig) -> None:
    """Write the features of every utterance that has no file yet."""
    from unitone.tokenizers.jobs import features as job

    job.write_features(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(FeaturesConfig, argv, __doc__)
    return program.run(lambda: write_features(config))


if __name__ == "__main__":
    raise SystemExit(main())
