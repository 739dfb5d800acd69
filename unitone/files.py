"""Files that are either whole or absent: write under a temporary name, then rename."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from unitone.errors import CheckpointError, ConfigError

UNFINISHED = ".unitone.tmp"
"""How the temporary names end; other programs' temporary files are not ours to delete."""
_HELD: set[Path] = set()
"""Folders that this process has locked."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on failure it goes.

    The data reach the disk before the name does, so a crash leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def path_of(value: Any, name: str) -> Path:
    """Return a path as a `Path`.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} must be a path, got {type(value).__name__}")
    return Path(value)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, records: Iterable[Any]) -> None:
    """Write one JSON value a line, whole or not at all."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_text(path, "".join(lines))


def write_readme(folder: Path, text: str) -> None:
    """Write a folder's README.md, unless the user has put one there: its first line isn't ours."""
    path = folder / "README.md"
    title = text.partition("\n")[0].encode()
    if not path.is_file() or path.read_bytes().partition(b"\n")[0].rstrip() == title:
        write_text(path, text)


def require_own(folder: Path, *marks: str) -> None:
    """Refuse a folder that holds files, none of which we begin with.

    Raises:
        ConfigError: it does; names the first of them.
    """
    if any((folder / mark).exists() for mark in marks) or not folder.is_dir():
        return
    found = sorted(path.name for path in folder.iterdir() if not path.name.endswith(UNFINISHED))
    if found:
        raise ConfigError(
            f"--out {folder} holds other files ({found[0]}); choose another --out or empty it"
        )


def read_json(path: Path, *, cure: str = "remove its folder") -> Any:
    """Read a JSON file; ``cure`` is what to do if it is damaged, the default for our own.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); {cure}") from error


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` (made if absent) for this process; the lock dies with the process.

    A process may take a lock again that it holds: a command takes it before it writes anything,
    and what it calls doesn't have to know.

    Raises:
        ConfigError: another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"--out {folder}: a file is in the way; choose another --out") from error
    place = folder.resolve()
    if place in _HELD:
        yield
        return
    try:
        import fcntl
    except ImportError:  # not a POSIX system: the user is the lock
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{folder} is being written by another process; wait for it or choose another --out"
        ) from None
    for left in folder.glob(f".*{UNFINISHED}"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    _HELD.add(place)
    try:
        yield
    finally:
        _HELD.discard(place)
        os.close(handle)
