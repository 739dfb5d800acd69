"""Lhotse cuts whose audio lies in a Shar archive: kept as positions, not audio.

A `StoredCut` is a few numbers; its audio is read when it is asked for and forgotten after. Of a
gzipped file, positions count in what it unpacks to; each thread keeps its own open, since it asks
for cuts in the order of the file.
"""

import gzip
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitone.errors import CorpusError

_open = threading.local()


@dataclass(frozen=True, kw_only=True)
class Position:
    """Bytes of a file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes."""
        if not _is_packed(self.path):
            with self.path.open("rb") as plain:
                plain.seek(self.offset)
                return plain.read(self.size)
        if getattr(_open, "path", None) != self.path:
            _open.path, _open.file = self.path, open_binary(self.path)
        _open.file.seek(self.offset)
        found: bytes = _open.file.read(self.size)
        return found


@dataclass(frozen=True, kw_only=True)
class StoredCut:
    """A cut without its audio, and where that lies."""

    cut: Any
    manifest: Position
    """JSON of the recording."""
    data: Position
    """The encoded audio."""

    def load(self) -> Any:
        """Return the cut with its audio."""
        from lhotse.serialization import deserialize_item
        from lhotse.shar.utils import fill_shar_placeholder
        from lhotse.utils import fastcopy

        found = deserialize_item(json.loads(self.manifest.read()))
        fill_shar_placeholder(found, data=self.data.read(), tarpath=self.data.path)
        return fastcopy(self.cut, recording=found)


def loaded(cut: Any) -> Any:
    """Return a cut as Lhotse has it."""
    return cut.load() if isinstance(cut, StoredCut) else cut


def open_binary(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Open a file; one that is gzipped is unpacked as it is read."""
    return gzip.open(path, "rb") if _is_packed(path) else path.open("rb")


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def archived(path: Path) -> Iterator[tuple[str, Position, Position] | None]:
    """Yield (id, audio, JSON) of the pairs in a tar file of Shar; None for a cut without one.

    Raises:
        CorpusError: it is no such file.
    """
    try:
        with open_binary(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = iter(tar)
            for data, manifest in zip(members, members, strict=True):
                tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
                if data.name.endswith(".nodata") or manifest.name.endswith(".nometa"):
                    yield None
                    continue
                audio, json_text = (
                    Position(path=path, offset=one.offset_data, size=one.size)
                    for one in (data, manifest)
                )
                yield str(Path(data.name).with_suffix("")), audio, json_text
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, ValueError) as error:
        raise CorpusError(f"{path}: not a tar file of Lhotse Shar ({error})") from error
