"""The checks of ``unitone certify``, and the certificate that is printed."""

import dataclasses
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unitone.errors import ConfigError, UnitoneError, choices
from unitone.lm import families
from unitone.lm.certify import losses, saving, targets
from unitone.lm.certify.command import SYNTHETIC, CertifyConfig
from unitone.lm.certify.setup import LmSetUp, described, set_up
from unitone.lm.options import LmConfig
from unitone.logs import Progress
from unitone.train.certify import course, processes, states, weights
from unitone.train.certify.setup import Finding

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


def certify(config: CertifyConfig[Any], *, say: Callable[[str], None] = print) -> bool:
    """Check the set-up and print the certificate; return whether everything holds.

    Raises:
        ConfigError: no such check.
        ConfigError, CorpusError, CheckpointError: the set-up can't be trained at all.
    """
    for name in config.checks:
        if name not in CHECKS:
            raise ConfigError(f"--checks {name}: there are {choices(name, [*CHECKS])}")
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
