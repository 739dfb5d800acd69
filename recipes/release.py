"""A corpus as it is released, turned into our manifest: what the recipes' ``prepare`` share."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unitone import files
from unitone.errors import CorpusError

MANIFEST = "manifest.jsonl"


def require(paths: Sequence[Path], *, source: str) -> None:
    """Refuse a release with missing files; ``source`` is where to get it.

    Raises:
        CorpusError: some of ``paths`` are not there.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise CorpusError(f"{missing[0]}{more} missing; get the corpus from {source}")


def write_manifest(out: Path, entries: Iterable[dict[str, Any]]) -> Path:
    """Write ``out/manifest.jsonl``, whole or not at all, and return its path.

    ``audio`` of an entry is the recording's path; its duration is added.

    Raises:
        CorpusError: a recording can't be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    files.write_json_lines(out / MANIFEST, (_entry(one, out) for one in entries))
    return out / MANIFEST


def _entry(entry: dict[str, Any], out: Path) -> dict[str, Any]:
    import soundfile

    audio: Path = entry["audio"]
    try:
        duration = soundfile.info(audio).duration
    except RuntimeError as error:  # libsndfile's own
        raise CorpusError(f"{audio}: not readable as audio ({error})") from error
    name = Path(os.path.relpath(audio.resolve(), out.resolve())).as_posix()
    return entry | {"audio": name, "duration": round(duration, 4)}
