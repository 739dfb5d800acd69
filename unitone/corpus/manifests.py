"""Readers of manifests: each takes a path and yields an utterance, or a reason, for every line."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unitone.corpus.utterance import Label, Skipped, Utterance
from unitone.errors import ConfigError, CorpusError

Entry = Utterance | Skipped
Reader = Callable[[Path], Iterator[Entry]]


def json_reader(path: Path, first: Mapping[str, Any]) -> Reader:
    """Return the reader of a JSON-lines file, by its first object."""
    kind = str(first.get("type", ""))
    if kind.endswith("Cut") or {"recording", "start"} <= first.keys():
        return read_lhotse
    if "sampling_rate" in first and "sources" in first:
        raise ConfigError(
            f"--manifest {path}: a Lhotse RecordingSet; make a CutSet of it with "
            "`lhotse cut simple`"
        )
    return read_nemo if "audio_filepath" in first else read_plain


def _open_text(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of a UTF-8 file; an undecodable byte becomes U+FFFD."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        try:
            yield from enumerate(file, start=1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CorpusError(f"{path}: damaged gzip file ({error})") from error


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | Skipped]]:
    """Yield the objects of a JSON-lines file with their line numbers."""
    for line, text in _open_text(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield line, Skipped(line=line, reason=f"{path.name} line {line} is not JSON ({error})")
            continue
        if not isinstance(record, dict):
            kind = type(record).__name__
            reason = f"{path.name} line {line} is a JSON {kind}, not an object"
            yield line, Skipped(line=line, reason=reason)
            continue
        yield line, record


def _read_records(
    path: Path, convert: Callable[[dict[str, Any], int], Utterance]
) -> Iterator[Entry]:
    for line, record in json_lines(path):
        if isinstance(record, Skipped):
            yield record
            continue
        try:
            yield convert(record, line)
        except (CorpusError, KeyError, ValueError, TypeError, AttributeError) as error:
            name = record.get("id")
            yield Skipped(
                id=name if isinstance(name, str) else None,
                line=line,
                reason=f"{path.name} line {line}: {error}",
            )


def read_plain(path: Path) -> Iterator[Entry]:
    """Read our own JSON lines."""

    def convert(record: dict[str, Any], line: int) -> Utterance:
        return Utterance(
            id=_text(record, "id", required=True),
            line=line,
            audio=path.parent / _text(record, "audio", required=True),
            start=_seconds(record, "start") or 0.0,
            duration=_seconds(record, "duration") if "start" in record else None,
            stated_duration=_seconds(record, "duration"),
            translation=_translation(record),
            labels=_labels(record),
            **_common(record),
        )

    return _read_records(path, convert)


def read_nemo(path: Path) -> Iterator[Entry]:
    """Read a NeMo manifest."""

    def convert(record: dict[str, Any], line: int) -> Utterance:
        name = _text(record, "audio_filepath", required=True)
        offset = _seconds(record, "offset")
        stem = str(Path(name).with_suffix(""))
        common = _common(record)
        common["language"] = common["language"] or _text(record, "lang") or None
        return Utterance(
            id=_text(record, "id") or (stem if offset is None else f"{stem}-{offset:.3f}"),
            line=line,
            audio=path.parent / name,
            start=offset or 0.0,
            duration=_seconds(record, "duration") if offset is not None else None,
            stated_duration=_seconds(record, "duration"),
            translation=_translation(record),
            **common,
        )

    return _read_records(path, convert)


def read_fairseq(path: Path) -> Iterator[Entry]:
    """Read a fairseq TSV."""
    texts = _fairseq_texts(path)
    root: Path | None = None
    for line, content in _open_text(path):
        if root is None:
            root = path.parent / content.strip()
            continue
        name, _, samples = content.rstrip("\r\n").partition("\t")
        if not name or not Path(name).name or not samples.strip().isdecimal():
            reason = (
                f'{path.name} line {line}: expected "path<TAB>samples", got {content.strip()!r}'
            )
            yield Skipped(line=line, reason=reason)
            continue
        yield Utterance(
            id=str(Path(name).with_suffix("")),
            line=line,
            audio=root / name,
            stated_duration=int(samples) / 16_000,
            text=texts[line - 2] if line - 2 < len(texts) else None,
        )


def _fairseq_texts(path: Path) -> list[str]:
    words, letters = path.with_suffix(".wrd"), path.with_suffix(".ltr")
    if words.is_file():
        return [text.strip() for _, text in _open_text(words)]
    if letters.is_file():
        return [text.replace(" ", "").replace("|", " ").strip() for _, text in _open_text(letters)]
    return []


def read_lhotse(path: Path) -> Iterator[Entry]:
    """Read Lhotse cuts, JSON lines."""
    from lhotse.serialization import deserialize_item

    def convert(record: dict[str, Any], line: int) -> Utterance:
        return utterance_of_cut(deserialize_item(record), line=line, folder=path.parent)

    return _read_records(path, convert)


def read_shar(path: Path) -> Iterator[Entry]:
    """Read a Lhotse Shar folder."""
    from lhotse import CutSet

    for line, cut in enumerate(CutSet.from_shar(in_dir=path), start=1):
        yield utterance_of_cut(cut, line=line, folder=path)


def utterance_of_cut(cut: Any, *, line: int, folder: Path) -> Utterance:
    """Return the record of a Lhotse cut; relative audio paths are tried from ``folder`` too."""
    supervision = cut.supervisions[0] if cut.supervisions else None
    custom = (getattr(supervision, "custom", None) or {}) | (getattr(cut, "custom", None) or {})
    texts = [s.text for s in cut.supervisions if s.text]
    known = Utterance(
        id=str(cut.id),
        line=line,
        audio=None,
        stated_duration=float(cut.duration),
        text=" ".join(texts) or None,
        translation=_translation(custom),
        language=getattr(supervision, "language", None),
        speaker=getattr(supervision, "speaker", None),
        gender=getattr(supervision, "gender", None),
        split=custom.get("split"),
        labels=_alignment(supervision),
    )
    sources = cut.recording.sources if getattr(cut, "has_recording", False) else []
    plain = type(cut).__name__ == "MonoCut" and len(sources) == 1 and sources[0].type == "file"
    if not plain or getattr(cut.recording, "transforms", None):
        return replace(known, cut=cut)
    audio = Path(sources[0].source)
    if not audio.is_absolute() and not audio.exists():
        audio = folder / audio
    whole = cut.start == 0 and abs(cut.duration - cut.recording.duration) < 1e-4
    several = cut.recording.num_channels > 1
    return replace(
        known,
        audio=audio,
        start=float(cut.start),
        duration=None if whole else float(cut.duration),
        channel=sources[0].channels.index(cut.channel) if several else None,
    )


def _alignment(supervision: Any) -> tuple[Label, ...]:
    alignment = getattr(supervision, "alignment", None) or {}
    for kind in ("phone", "phones", "phoneme", "char"):
        if kind in alignment:
            shift = float(supervision.start)
            return tuple(
                (item.symbol, float(item.start) + shift, float(item.end) + shift)
                for item in alignment[kind]
            )
    return ()


def _common(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _text(record, name) or None
        for name in ("text", "language", "speaker", "gender", "split")
    }


def _text(record: Mapping[str, Any], name: str, *, required: bool = False) -> str:
    value = record.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and name in ("id", "speaker"):
        value = str(value)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        state = "is missing" if value is None else f"must be a non-empty string, got {value!r}"
        raise CorpusError(f'field "{name}" {state}')
    return value


def _seconds(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise CorpusError(f'field "{name}" must be a number of seconds, got {value!r}')
    return float(value)


def _translation(record: Mapping[str, Any]) -> dict[str, str]:
    value = record.get("translation")
    if value is None:
        return {}
    if isinstance(value, str):
        return {_text(record, "translation_language") or "und": value}
    if isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values()):
        return dict(sorted(value.items()))
    raise CorpusError(
        f'field "translation" must be a text or an object language → text, got {value!r}'
    )


def _labels(record: Mapping[str, Any]) -> tuple[Label, ...]:
    value = record.get("phones") or record.get("characters") or ()
    try:
        return tuple((str(symbol), float(start), float(end)) for symbol, start, end in value)
    except (TypeError, ValueError) as error:
        raise CorpusError('field "phones" must be a list of [symbol, start, end]') from error
