"""Translate a recording or a text: ``unitone translate a.wav --to de``."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from unitone import program
from unitone.config import command_line
from unitone.lm.options import DecodingPrecision


@dataclass(frozen=True, kw_only=True)
class TranslateConfig:
    source: tyro.conf.Positional[str]
    """An audio file, or a text in quotes."""
    to: str
    """Language to translate into, as the corpus calls it."""
    model: Path | None = None
    """Model directory; default: the tour's, exp/tour/lm/best."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: DecodingPrecision = "fp32"
    """fp32, bf16 where the processor has it, or int8, on a CPU."""


def translate(config: TranslateConfig) -> None:
    """Write the translation."""
    from unitone.lm.inference import open_model

    model = open_model(config.model, device=config.device, precision=config.precision)
    sys.stdout.write(model.translate(config.source, to=config.to) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(TranslateConfig, argv, __doc__)
    return program.run(lambda: translate(config))


if __name__ == "__main__":
    raise SystemExit(main())
