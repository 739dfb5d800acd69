"""A recipe as a list of steps: the configuration of a command, and the function that runs it."""

import logging
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Generic, TypeVar

from unitone import program
from unitone.config import arguments
from unitone.errors import UnitoneError

logger = logging.getLogger(__name__)

Config = TypeVar("Config")

SHORT = ("tokenizers", "lm", "eval", "recipes")
"""Rooms that a checkout finds without ``unitone.``; ``codecs`` is Python's own there."""


@dataclass(frozen=True)
class Step(Generic[Config]):
    """A command of the toolkit: what it is to do, and the function that its command line calls."""

    config: Config
    run: Callable[[Config], object]

    @property
    def module(self) -> str:
        """The module that ``python -m`` takes; a folder whose ``__main__`` it is, if it is one."""
        module = self.run.__module__
        package = module.rpartition(".")[0]
        whole = package and find_spec(f"{package}.__main__")
        name = (package if whole else module).removeprefix("unitone.")
        return name if name.partition(".")[0] in SHORT else f"unitone.{name}"

    @property
    def command(self) -> str:
        """The command line that does the same."""
        return f"python -m {self.module} {shlex.join(arguments(self.config))}"

    def execute(self) -> float:
        """Print the command and run it; return the seconds it took.

        Raises:
            UnitoneError: it failed; why, the command has printed.
        """
        logger.info("\n$ %s", self.command)
        started = time.perf_counter()
        status = program.run(self._run)
        if status == program.INTERRUPTED:
            raise KeyboardInterrupt
        if status != 0:
            raise UnitoneError(f"stopped at: {self.command}")
        seconds = time.perf_counter() - started
        logger.info("  done in %.1f s", seconds)
        return seconds

    def _run(self) -> None:
        self.run(self.config)


def compiles(wanted: bool) -> bool:
    """Tell whether a model's blocks are compiled: if that is wanted, and there is a compiler."""
    return wanted and bool(shutil.which("g++") or shutil.which("clang++"))
