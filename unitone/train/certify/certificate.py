"""The certificate: checks by name, one after the other, and what is printed of them."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from unitone.errors import UnitoneError
from unitone.logs import Progress
from unitone.train.certify import course, processes, states, weights
from unitone.train.certify.setup import Finding, SetUp

Kind = TypeVar("Kind", bound=SetUp)

CHECKS: Mapping[str, Callable[[SetUp], Finding]] = {
    "gradients": weights.gradients,
    "decay": weights.decay,
    "precision": weights.precision,
    "schedule": course.schedule,
    "order": course.order,
    "validation": course.validation,
    "resume": states.resume,
    "ema": states.ema,
    "average": states.average,
    "ddp": partial(processes.two_are_one, way="ddp"),
    "fsdp": partial(processes.two_are_one, way="fsdp"),
}
"""Of any set-up, by name, in the order they are done and printed."""


def issue(
    setup: Kind,
    checks: Mapping[str, Callable[[Kind], Finding]],
    *,
    title: str,
    facts: Mapping[str, Any],
    as_json: bool = False,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Check a set-up and print the certificate.

    Args:
        setup: what is checked.
        checks: by name, in order.
        title: the first line.
        facts: what was checked, for the JSON object.
        as_json: one object instead of lines.
        say: prints.

    Returns:
        The names of the checks that failed.
    """
    if not as_json:
        say(title)
    found: dict[str, Finding] = {}
    with Progress("certify", total=float(len(checks)), unit="check") as progress:
        for name, check in checks.items():
            found[name] = checked(name, check, setup)
            progress.advance(1.0)
            if not as_json:
                say(_line(name, found[name]))
    failed = [name for name, finding in found.items() if finding.passed is False]
    if as_json:
        findings = {name: dataclasses.asdict(finding) for name, finding in found.items()}
        say(json.dumps({"set-up": facts, "failed": failed, "checks": findings}, indent=2))
    else:
        say(_verdict(found, failed))
    return failed


def checked(name: str, check: Callable[[Kind], Finding], setup: Kind) -> Finding:
    """Return what a check finds; one that can't be done to its end has failed."""
    try:
        return check(setup)
    except Exception as error:  # whatever a set-up's own code raises is a finding about it
        what = f"{name} could be checked"
        kind = "" if isinstance(error, UnitoneError) else f"{type(error).__name__}: "
        text = str(error).strip().split("\n")[0]
        return Finding(what=what, figure=f"{kind}{text}", passed=False, cure="see the message")


def require(setup: SetUp, *, title: str) -> None:
    """Do the checks of any set-up, for a command that trains it.

    Raises:
        UnitoneError: something doesn't hold.
    """
    logging.getLogger("unitone").setLevel(logging.ERROR)  # of runs that nobody will keep
    if failed := issue(setup, CHECKS, title=title, facts={}):
        raise UnitoneError(f"not certified: {', '.join(failed)}")


def size(setup: SetUp) -> str:
    """Return how many weights are trained, each counted once."""
    networks = setup.networks().values()
    found = {parameter for network in networks for parameter in network.parameters()}
    return f"{sum(parameter.numel() for parameter in found) / 1e6:.1f} M weights"


def _line(name: str, finding: Finding) -> str:
    mark = {True: "holds", False: "FAILS", None: "-"}[finding.passed]
    cure = f"\n{'':21}cure: {finding.cure}" if finding.passed is False else ""
    return f"{mark:<7}{name:<14}{finding.what}\n{'':21}{finding.figure}{cure}"


def _verdict(found: Mapping[str, Finding], failed: Sequence[str]) -> str:
    held = sum(finding.passed is True for finding in found.values())
    beside = sum(finding.passed is None for finding in found.values())
    rest = f"; {beside} have nothing to check here" if beside else ""
    if failed:
        return f"{len(failed)} of {len(found)} fail: {', '.join(failed)}{rest}"
    return f"{held} of {len(found)} hold{rest}"
