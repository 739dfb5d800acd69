"""Tokens to waveforms: ``python -m unitone.codecs.synthesize --model D --tokens T --out OUT``.

Writes one WAV (16 bit) for every row of the shards, for listening and for scoring, and
``manifest.jsonl`` beside them with the texts of the shards. Files that are there already are left.
A unit decoder speaks the units, a neural codec the codes that `unitone.codecs.encode` has added.
"""

from dataclasses import dataclass
from pathlib import Path

from unitone import program
from unitone.config import command_line


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig:
    model: Path
    """Directory of a unit decoder, or of a neural codec."""
    tokens: Path
    """Shards with the units of the same tokenizer, or the codes of the same codec."""
    out: Path
    """Folder for the WAV files."""
    split: str | None = None
    """Only the utterances of this split."""
    limit: int | None = None
    """At most so many utterances."""
    speaker: str | None = None
    """Everything in this voice; default: each utterance's own."""
    predict_durations: bool = False
    """Let the decoder time the units, instead of the recording."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def synthesize(config: SynthesizeConfig) -> None:
    """Decode the shards; do only what is missing in ``config.out``."""
    from unitone.codecs.jobs import synthesize as job

    job.synthesize(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(SynthesizeConfig, argv, __doc__)
    return program.run(lambda: synthesize(config))


if __name__ == "__main__":
    raise SystemExit(main())
