"""Say what is said in recordings: ``unitone transcribe a.wav``."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from unitone import program
from unitone.config import command_line
from unitone.lm.inference import open_model


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    recordings: tyro.conf.Positional[tuple[Path, ...]]
    """Audio files; the text of each is a line."""
    model: Path | None = None
    """Model directory; default: the tour's, exp/tour/lm/best."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def transcribe(config: TranscribeConfig) -> None:
    """Write the texts, one a line."""
    model = open_model(config.model, device=config.device)
    for text in model.transcribe_all(config.recordings):
        sys.stdout.write(text + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(TranscribeConfig, argv, __doc__)
    return program.run(lambda: transcribe(config))


if __name__ == "__main__":
    raise SystemExit(main())
