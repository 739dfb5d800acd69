"""A recipe as a list of commands: what a user would type is what runs."""

import logging
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from unitone import program
from unitone.errors import UnitoneError

logger = logging.getLogger(__name__)

Main = Callable[[list[str] | None], int]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of the toolkit, as typed and as called."""

    module: str
    arguments: tuple[str, ...]
    main: Main

    @property
    def typed(self) -> str:
        """The command line."""
        return f"python -m {self.module} {shlex.join(self.arguments)}"

    def run(self) -> float:
        """Print the command and run it; return the seconds it took.

        Raises:
            UnitoneError: it failed; it has said why itself.
        """
        logger.info("\n$ %s", self.typed)
        started = time.perf_counter()
        status = self.main(list(self.arguments))
        if status == program.INTERRUPTED:
            raise KeyboardInterrupt
        if status != 0:
            raise UnitoneError(f"stopped at: {self.typed}")
        seconds = time.perf_counter() - started
        logger.info("  done in %.1f s", seconds)
        return seconds


def compiling(wanted: bool) -> tuple[str, ...]:
    """Return the option that compiles a model's blocks; none without a C++ compiler."""
    found = wanted and (shutil.which("g++") or shutil.which("clang++"))
    return ("--compile",) if found else ()
