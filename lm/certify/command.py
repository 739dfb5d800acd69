"""Check a training set-up in a minute: ``unitone certify --config lm-tiny``.

It takes the options of ``lm.train`` and trains a few steps of what they describe, in several ways:
stopped and resumed, with two processes, packed, padded, one by one. Every line of the certificate
is a claim with the numbers that were compared. Exit status 1 if one doesn't hold.

Without ``--tokens`` (or ``--data``) it makes a small corpus of random tokens; with them it takes
short utterances of yours. ``--compile``, ``--workers`` and ``--parallel`` are not part of it.
"""

import dataclasses
import json
import logging
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from unitone import program
from unitone.config import command_line, option_value
from unitone.errors import ConfigError, UnitoneError, choices
from unitone.lm import families
from unitone.lm.certify import losses, saving, targets
from unitone.lm.certify.setup import LmSetUp, described, set_up
from unitone.lm.options import LmConfig, Options
from unitone.logs import Progress
from unitone.train.certify import course, processes, states, weights
from unitone.train.certify.setup import Finding

SYNTHETIC = Path("synthetic")
"""``--tokens``, where there are none."""

CHECKS: Mapping[str, Callable[[LmSetUp], Finding]] = {
    "gradients": weights.gradients,
    "decay": weights.decay,
    "precision": weights.precision,
    "schedule": course.schedule,
    "order": course.order,
    "validation": course.validation,
    "resume": states.resume,
    "ema": states.ema,
    "average": states.average,
    "saving": saving.saving,
    "accumulation": losses.accumulation,
    "padding": losses.padding,
    "neighbours": losses.neighbours,
    "packing": losses.packing,
    "targets": targets.targets,
    "tasks": targets.tasks,
    "causality": targets.causality,
    "ddp": partial(processes.two_are_one, way="ddp"),
    "fsdp": partial(processes.two_are_one, way="fsdp"),
}
"""By name, in the order they are done and printed."""


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

    def __post_init__(self) -> None:
        for name in self.checks:
            if name not in CHECKS:
                raise ConfigError(f"--checks {name}: there are {choices(name, [*CHECKS])}")


def certify(config: CertifyConfig[Any], *, say: Callable[[str], None] = print) -> bool:
    """Check the set-up and print the certificate; return whether everything holds.

    Raises:
        ConfigError, CorpusError, CheckpointError: the set-up can't be trained at all.
    """
    name = families.of_size(config.config)
    # imported once for all processes that the checks start
    multiprocessing.set_forkserver_preload(
        ["unitone.lm.certify.setup", f"unitone.lm.{name}.training"]
    )
    with tempfile.TemporaryDirectory(prefix="unitone-certify-") as folder:
        own = {field.name for field in dataclasses.fields(LmConfig)}
        lm = LmConfig(**{name: getattr(config, name) for name in own})
        setup = set_up(lm, Path(folder), given=config.tokens != SYNTHETIC)
        facts = described(setup)
        if not config.json:
            say(_head(facts))
        found = {}
        names = [name for name in CHECKS if name in config.checks or not config.checks]
        with Progress("certify", total=float(len(names)), unit="check") as progress:
            for name in names:
                found[name] = checked(name, setup)
                progress.advance(1.0)
                if not config.json:
                    say(_line(name, found[name]))
    failed = [name for name, finding in found.items() if finding.passed is False]
    if config.json:
        findings = {name: dataclasses.asdict(finding) for name, finding in found.items()}
        say(json.dumps({"set-up": facts, "failed": failed, "checks": findings}, indent=2))
    else:
        say(_verdict(found, failed))
    return not failed


def checked(name: str, setup: LmSetUp) -> Finding:
    """Return what a check finds; one that can't be done to its end has failed."""
    try:
        return CHECKS[name](setup)
    except Exception as error:  # whatever a family's own code raises is a finding about it
        what = f"{name} could be checked"
        kind = "" if isinstance(error, UnitoneError) else f"{type(error).__name__}: "
        text = str(error).strip().split("\n")[0]
        return Finding(what=what, figure=f"{kind}{text}", passed=False, cure="see the message")


def _head(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['config']}: {facts['parameters'] / 1e6:.1f} M weights; "
        f"{', '.join(facts['tasks'])}; {facts['utterances']} utterances"
    )


def _line(name: str, finding: Finding) -> str:
    mark = {True: "holds", False: "FAILS", None: "-"}[finding.passed]
    cure = f"\n{'':21}cure: {finding.cure}" if finding.passed is False else ""
    return f"{mark:<7}{name:<14}{finding.what}\n{'':21}{finding.figure}{cure}"


def _verdict(found: Mapping[str, Finding], failed: list[str]) -> str:
    held = sum(finding.passed is True for finding in found.values())
    beside = sum(finding.passed is None for finding in found.values())
    rest = f"; {beside} have nothing to check here" if beside else ""
    if failed:
        return f"{len(failed)} of {len(found)} fail: {', '.join(failed)}{rest}"
    return f"{held} of {len(found)} hold{rest}"


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
        status = 0 if certify(config, say=_print) else 1

    return program.run(run) or status


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
