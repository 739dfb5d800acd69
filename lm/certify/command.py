"""Check a training set-up in a minute: ``unitone certify --config lm-tiny``.

It takes the options of ``lm.train`` and trains a few steps of what they describe, in several ways:
stopped and resumed, with two processes, packed, padded, one by one. Every line of the certificate
is a claim with the numbers that were compared. Exit status 1 if one doesn't hold.

Without ``--tokens`` (or ``--data``) it makes a small corpus of random tokens; with them it takes
short utterances of yours. ``--compile``, ``--workers`` and ``--parallel`` are not part of it.
"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from unitone import program
from unitone.config import command_line, option_value
from unitone.lm import families
from unitone.lm.options import LmConfig, Options

SYNTHETIC = Path("synthetic")
"""``--tokens``, where there are none."""


@dataclass(frozen=True, kw_only=True)
class CertifyConfig(LmConfig[Options]):
    """The options of ``lm.train``, and those of the certificate."""

    tokens: Annotated[Path, tyro.conf.arg(aliases=["--data"])] = SYNTHETIC
    """Token shards, of ``python -m tokenizers.encode``; default: a small corpus made here."""
    out: Annotated[Path, tyro.conf.Suppress] = Path("certificate")
    """Not used: everything is written to a temporary folder."""
    checks: tuple[str, ...] = ()
    """Only these, by the names in the certificate."""
    json: bool = False
    """Print one JSON object instead of lines."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status, 1 if something doesn't hold."""
    size = option_value(argv, "--config") or LmConfig.config
    status = 0

    def run() -> None:
        nonlocal status
        name = families.of_size(size)
        options = families.module(name, "options").Options
        kind: Any = CertifyConfig
        config = command_line(kind[options], argv, __doc__)
        logging.getLogger("unitone").setLevel(logging.ERROR)  # of runs that nobody will keep
        from unitone.lm.certify.certificate import certify

        status = 0 if certify(config, say=_print) else 1

    return program.run(run) or status


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
