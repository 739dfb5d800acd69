"""Going on after a kill: a journal of what is done, and the check that it is the same job.

A `Journal` is an append-only file of JSON records. A record is one line and is handed to the
operating system whole before `append` returns. What a kill or a full disk cut off is the last line
only; it is dropped when the journal is opened again.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from unitone.errors import ConfigError


class Journal:
    """Records in ``path``; nothing is opened before the first `append`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def records(self) -> list[dict[str, Any]]:
        """Return the whole records, in the order they were appended."""
        if not self.path.is_file():
            return []
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.split(b"\n") if line]

    def append(self, record: dict[str, Any]) -> None:
        """Add one record."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; the records stay."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)


def _drop_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    whole, newline, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        with path.open("r+b") as file:
            file.truncate(len(whole) + len(newline))


def require_unchanged(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    where: Path,
    may_differ: Collection[str] = (),
    cure: str = "choose another --out or remove it",
) -> None:
    """Compare the settings of now with those that a folder or file was begun with.

    Args:
        before: as read from JSON; a setting that ``now`` has not is not compared.
        now: the settings; nested ones are named with dots, ``train.lr``.
        where: what was begun, as the error names it.
        may_differ: the last parts of the names that don't matter.
        cure: what to do about it.

    Raises:
        ConfigError: one differs; names it, with both values.
    """
    plain = json.loads(json.dumps(now))
    for name, old, new in _differences({key: before.get(key) for key in plain}, plain):
        if name.rpartition(".")[2] not in may_differ:
            raise ConfigError(f"{where} was begun with {name} = {old}, now it is {new}; {cure}")


def _differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**now, **before}:
            path = f"{name}.{key}" if name else key
            yield from _differences(before.get(key), now.get(key), path)
    elif before != now:
        yield name, before, now
