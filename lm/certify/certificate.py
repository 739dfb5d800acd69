"""The checks of ``unitone certify``, and the certificate that is printed."""

import dataclasses
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unitone.errors import ConfigError, choices
from unitone.lm import families
from unitone.lm.certify import losses, saving, targets
from unitone.lm.certify.command import SYNTHETIC, CertifyConfig
from unitone.lm.certify.setup import LmSetUp, described, set_up
from unitone.lm.options import LmConfig
from unitone.train.certify import certificate
from unitone.train.certify.setup import Finding

PROCESSES = ("ddp", "fsdp")
"""The slowest checks of any set-up, done last."""
CHECKS: Mapping[str, Callable[[LmSetUp], Finding]] = {
    **{name: check for name, check in certificate.CHECKS.items() if name not in PROCESSES},
    "saving": saving.saving,
    "accumulation": losses.accumulation,
    "padding": losses.padding,
    "neighbours": losses.neighbours,
    "packing": losses.packing,
    "targets": targets.targets,
    "tasks": targets.tasks,
    "causality": targets.causality,
    **{name: certificate.CHECKS[name] for name in PROCESSES},
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
        return not certificate.issue(
            setup,
            {n: check for n, check in CHECKS.items() if n in config.checks or not config.checks},
            title=_head(facts),
            facts=facts,
            as_json=config.json,
            say=say,
        )


def checked(name: str, setup: LmSetUp) -> Finding:
    """Return what a check finds; one that can't be done to its end has failed."""
    return certificate.checked(name, CHECKS[name], setup)


def _head(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['config']}: {facts['parameters'] / 1e6:.1f} M weights; "
        f"{', '.join(facts['tasks'])}; {facts['utterances']} utterances"
    )
