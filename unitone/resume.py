"""An append-only file of JSON records that survives being killed at any moment.

A record is one line and is handed to the operating system whole before `append` returns. What a
kill or a full disk cut off is the last line only; it is dropped when the journal is opened again.
"""

import json
from pathlib import Path
from typing import Any, TextIO


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
