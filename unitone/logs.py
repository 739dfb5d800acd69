"""Logging and progress for the command lines; libraries never configure logging themselves."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from tqdm import tqdm


def _is_other() -> bool:
    """Tell whether another process of this run is the one that reports."""
    return os.environ.get("RANK", "0") != "0"


def configure(level: int = logging.INFO) -> None:
    """Send the toolkit's log lines to standard error, one short line each."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    for name in ("unitone", "__main__"):  # what runs as a program is called __main__
        logging.getLogger(name).setLevel(logging.WARNING if _is_other() else level)


class Progress:
    """A bar in a real unit (seconds of audio, utterances) with rate and ETA, as a context manager.

    On a terminal it redraws itself; elsewhere it writes a line every ``quiet_interval`` seconds,
    so that a log of a long job shows how far it is.
    """

    def __init__(
        self, what: str, *, total: float | None, unit: str, quiet_interval: float = 30.0
    ) -> None:
        live = sys.stderr.isatty()
        self._bar = tqdm(
            desc=what,
            total=total,
            unit=unit,
            unit_scale=True,
            file=sys.stderr,
            disable=_is_other(),
            mininterval=0.2 if live else quiet_interval,
            maxinterval=10.0 if live else quiet_interval,
            dynamic_ncols=live,
        )

    def advance(self, amount: float) -> None:
        """Count ``amount`` more units as done."""
        if self._bar.total is not None:  # a stated duration may be rounded down
            self._bar.total = max(self._bar.total, self._bar.n + amount)
        self._bar.update(amount)

    def note(self, **values: object) -> None:
        """Show ``values`` after the bar."""
        self._bar.set_postfix(values, refresh=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()


class RunLog:
    """Events of a run as JSON lines, appended; the only output that differs between two runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, **values: object) -> None:
        """Append one event with the time in UTC."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **values}, ensure_ascii=False, default=str)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
