"""The lines of manifests: UTF-8, plain or gzipped, JSON objects; and what a file is that isn't one.

Text is never replaced: a line that isn't UTF-8 can't be used, and says so.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unitone.corpus.utterance import Skipped
from unitone.errors import ConfigError, CorpusError

WHOLE = 1 << 28
"""Bytes of a file that is read whole to say what it is."""
_MARKS = {
    b"PAR1": "Parquet",
    b"PK\x03\x04": "a zip archive (or a spreadsheet)",
    b"RIFF": "a recording",
    b"fLaC": "a recording",
    b"OggS": "a recording",
    b"ID3": "a recording",
    b"ARROW1": "Arrow",
    b"%PDF": "PDF",
    b"\x80\x04": "a pickle",
}
_LINES = "give JSON lines, one object a line"


class Line(NamedTuple):
    """A tuple: manifests have millions of them, and a dataclass takes three times as long."""

    number: int
    """From 1."""
    text: str | None
    """Without the end of the line; None where it isn't UTF-8."""
    error: str = ""
    """Why there is no text."""

    def with_text(self, text: str | None) -> "Line":
        """Return the line with another text."""
        return self._replace(text=text)


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file, unpacked where its name ends in ``.gz``.

    Raises:
        ConfigError: it is UTF-16 or UTF-32.
        CorpusError: the gzip file is damaged.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for number, raw in enumerate(file, start=1):
                if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
                    raise ConfigError(
                        f"--manifest {path} is UTF-16 or UTF-32: make UTF-8 of it, e.g. "
                        f"`iconv -f utf-16 -t utf-8 {path.name}`"
                    )
                text, error = _decoded(raw, path=path, number=number)
                yield Line(number=number, text=text, error=error)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CorpusError(f"{path}: damaged gzip file ({error})") from error


def _decoded(raw: bytes, *, path: Path, number: int) -> tuple[str | None, str]:
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return None, (
            f"{path.name} line {number} is not UTF-8 (byte 0x{raw[error.start]:02x} at "
            f"{error.start}): convert the file, e.g. `iconv -f cp1252 -t utf-8`"
        )
    return text.rstrip("\r\n"), ""


def json_lines(path: Path) -> Iterator[tuple[Line, dict[str, Any] | Skipped]]:
    """Yield the objects of a JSON-lines file with their lines."""
    for line in read_lines(path):
        if line.text is None:
            yield line, Skipped(line=line.number, reason=line.error)
            continue
        if not line.text.strip():
            continue
        reason = f"{path.name} line {line.number} is "
        try:
            record = loads(line.text)
        except (ValueError, RecursionError) as error:
            yield line, Skipped(line=line.number, reason=f"{reason}not JSON ({error})")
            continue
        if not isinstance(record, dict):
            kind = type(record).__name__
            skipped = Skipped(line=line.number, reason=f"{reason}a JSON {kind}, not an object")
            yield line, skipped
            continue
        yield line, record


def loads(text: str) -> Any:
    """Return the value of a JSON text, in which no object names a field twice.

    Raises:
        ValueError: it is no JSON, or names one twice; `json.loads` keeps the last without a word.
    """
    found = json.loads(text)
    # a field is a quote and a colon: where there are as many as fields, none came twice
    if text.count('":') == _fields(found):
        return found
    return json.loads(text, object_pairs_hook=_without_doubles)


def _fields(value: Any) -> int:
    """Return how many fields there are in all objects of a JSON value."""
    named = type(value) is dict
    inner = value.values() if named else value if type(value) is list else ()
    nested = sum(_fields(one) for one in inner if type(one) is dict or type(one) is list)
    return (len(value) if named else 0) + nested


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'it names the field "{twice}" twice')
    return found


def first_object(path: Path) -> dict[str, Any]:
    """Return the first object of a JSON-lines file, an empty one where there is none.

    Raises:
        ConfigError: it is another kind of file, which is named.
    """
    with path.open("rb") as file:
        head = file.read(16)
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            raise ConfigError(f"--manifest {path} is {name}, no manifest: {_LINES}")
    looked = False
    for line, record in json_lines(path):
        if isinstance(record, dict) and not _is_table(record):
            return record
        if not looked and line.text is not None and line.text.lstrip()[:1] in ("[", "{"):
            _refuse_whole(path)
        looked = True
    return {}


def _is_table(record: Mapping[str, Any]) -> bool:
    """Tell whether an object holds one object for each id, as SpeechBrain's JSON does."""
    return bool(record) and all(isinstance(value, dict) for value in record.values())


def _refuse_whole(path: Path) -> None:
    """Name the form of a file that is one JSON value."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        raw = file.read(WHOLE)
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return
    cure = f"{_LINES}, e.g. by `jq -c '.[]' {path.name}`"
    if isinstance(value, list):
        raise ConfigError(f"--manifest {path} is a JSON array: {cure}")
    if isinstance(value, dict) and _is_table(value):
        fields = next(iter(value.values()))
        name = (
            "SpeechBrain's JSON" if "wav" in fields else "one JSON object with a record for an id"
        )
        raise ConfigError(
            f'--manifest {path} is {name}: {_LINES}, with "id", "audio" and "text", e.g. by '
            f"`jq -c 'to_entries[] | {{id: .key, audio: .value.wav, text: .value.words}}'`"
        )
    if b"\n" in raw.strip():
        raise ConfigError(f"--manifest {path} is one JSON object over several lines: {_LINES}")
