"""Readers of Lhotse's cuts, of JSON lines and of Shar directories.

In Lhotse, a supervision counts its start from the beginning of the cut, but its alignment from the
beginning of the *recording*: cutting shifts the one and leaves the other. A cut whose audio was
written anew (Shar, `move_to_memory`, `save_audio`) starts at 0 and has forgotten where it began.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from unitone.corpus import fields
from unitone.corpus.lines import json_lines
from unitone.corpus.stored_cuts import StoredCut, archived
from unitone.corpus.utterance import Entry, Label, Row, Skipped, Utterance
from unitone.errors import CorpusError

logger = logging.getLogger(__name__)

ALIGNMENTS = ("phone", "phones", "phoneme", "char")
"""What the alignments of phones and characters are called; the first that is there counts."""
EDGE = 0.1
"""Seconds by which a supervision may stick out of its cut and still be heard whole."""


def read_lhotse(path: Path) -> Iterator[Row | Skipped]:
    """Read Lhotse cuts, JSON lines."""
    for line, record in json_lines(path):
        if isinstance(record, Skipped):
            yield record
            continue
        convert = partial(utterance_of_cut, line=line.number, folder=path.parent)
        yield _row(record, path, line=line.number, convert=convert)


def read_shar(path: Path) -> Iterator[Row | Skipped]:
    """Read a Lhotse Shar directory; of its fields, only recordings.

    Raises:
        CorpusError: an archive is damaged or isn't that of its cuts.
    """
    number = 0
    for shard in sorted(path.glob("cuts.*.jsonl*")):
        for record, recording in zip_longest(json_lines(shard), _recordings(shard), fillvalue=None):
            number += 1
            if record is None or recording is None:
                raise CorpusError(f"{shard}: not as many cuts as its recordings are")
            _, found = record
            if isinstance(found, Skipped):
                yield replace(found, line=number)
                continue
            attach = partial(_with_recording, recording=recording, line=number, folder=path)
            yield _row(found, shard, line=number, convert=attach)


def _row(
    record: Mapping[str, Any], path: Path, *, line: int, convert: Callable[[Any], Utterance]
) -> Row:
    """Return the row of a cut; making Lhotse's object of it takes fifty times as long."""
    name = record.get("id")
    return Row(
        id=name if isinstance(name, str) and name else None,
        seconds=fields.quick_seconds(record.get("duration")),
        split=_quick_split(record),
        entry=partial(_entry, record, path, line=line, convert=convert),
    )


def _quick_split(record: Mapping[str, Any]) -> Any:
    """Return the split that a cut or all its supervisions name; ``...`` where it takes a look."""
    own = _custom_split(record)
    if own is None and "tracks" not in record:
        spoken = record.get("supervisions")
        names = {_custom_split(one) for one in (spoken if isinstance(spoken, list) else ())}
        own = names.pop() if len(names) == 1 else None
    return own or ...


def _custom_split(record: Any) -> str | None:
    custom = record.get("custom") if isinstance(record, Mapping) else None
    split = custom.get("split") if isinstance(custom, Mapping) else None
    return split if isinstance(split, str) else None


def _entry(
    record: Mapping[str, Any],
    path: Path,
    *,
    line: int,
    convert: Callable[[Any], Utterance],
) -> Entry:
    from lhotse.serialization import deserialize_item

    try:
        return convert(deserialize_item(dict(record)))
    except Exception as error:  # whatever Lhotse raises over a field of another type
        name = record.get("id")
        reason = (
            str(error) if isinstance(error, CorpusError) else f"not a cut of Lhotse ({error!r})"
        )
        return Skipped(
            id=name if isinstance(name, str) else None,
            line=line,
            reason=f"{path.name} line {line}: {reason}",
        )


def _recordings(shard: Path) -> Iterator[Any]:
    """Yield what stands for each recording of a shard: a place in a tar file, a record, or ''."""
    number = shard.name.split(".")[1]
    for file in sorted(shard.parent.glob(f"recording.{number}.*")):
        if ".tar" in file.suffixes:
            yield from (found or "" for found in archived(file))
        else:
            yield from (found for _, found in json_lines(file))
        return
    yield from ("" for _ in json_lines(shard))


def _with_recording(cut: Any, *, recording: Any, line: int, folder: Path) -> Utterance:
    from lhotse.serialization import deserialize_item

    if isinstance(recording, tuple):
        name, data, manifest = recording
        if name != str(cut.id):
            raise CorpusError(f"cut {cut.id}, but the archive has the recording of {name}")
        made = utterance_of_cut(cut, line=line, folder=folder)
        return replace(made, cut=StoredCut(cut=cut, manifest=manifest, data=data), audio=None)
    found = recording.get("recording") if isinstance(recording, Mapping) else None
    if found is not None:
        cut.recording = deserialize_item(found)
    return utterance_of_cut(cut, line=line, folder=folder)


@dataclass(frozen=True, kw_only=True)
class _Spoken:
    """A supervision, in seconds of the cut."""

    start: float
    end: float
    text: str | None
    language: str | None
    speaker: str | None
    gender: str | None
    split: str | None
    translation: dict[str, str]
    labels: tuple[Label, ...]


def utterance_of_cut(cut: Any, *, line: int, folder: Path) -> Utterance:
    """Return the record of a Lhotse cut; relative audio paths are tried from ``folder`` too.

    Several supervisions are taken in order of time. A field on which they differ is null, and so is
    the text where one of them goes on beyond the cut.
    """
    duration = fields.seconds(cut.duration, "duration")
    if not duration:
        raise CorpusError("a cut of 0 s")
    spoken = [one for one in _spoken(cut, folder) if one.end > 0 and one.start < duration]
    heard = all(one.start >= -EDGE and one.end <= duration + EDGE for one in spoken if one.text)
    texts = [one.text for one in spoken if one.text]
    custom = _custom(cut)
    split = custom.get("split") if custom.get("split") is not None else None
    languages = {tuple(one.translation) for one in spoken if one.text or one.translation}
    translated = heard and len(languages) == 1
    translation = (
        {name: " ".join(one.translation[name] for one in spoken if one.translation)
         for name in next(iter(languages))}
        if translated
        else {}
    )  # fmt: skip
    known = Utterance(
        id=fields.required(fields.label(cut.id, "id"), "id"),
        line=line,
        audio=None,
        stated_duration=duration,
        text=" ".join(texts) or None if heard else None,
        translation=fields.translation(custom) or translation,
        language=fields.differing(one.language for one in spoken),
        speaker=fields.differing(one.speaker for one in spoken),
        gender=fields.differing(one.gender for one in spoken),
        split=fields.text(split, "split") or fields.differing(one.split for one in spoken),
        labels=_inside([label for one in spoken for label in one.labels], duration),
    )
    return _with_audio(known, cut, folder)


def _with_audio(known: Utterance, cut: Any, folder: Path) -> Utterance:
    """Say where the audio is: a stretch of a file, or the cut itself."""
    sources = _sources(cut)
    for source in sources:
        if source.type == "file":
            _anchor(source, folder)
    plain = type(cut).__name__ == "MonoCut" and len(sources) == 1 and sources[0].type == "file"
    if not plain or getattr(cut.recording, "transforms", None):
        return replace(known, cut=cut)
    start, duration = fields.seconds(cut.start, "start") or 0.0, known.stated_duration
    length = fields.seconds(cut.recording.duration, "duration")
    whole = start == 0 and length is not None and abs((duration or 0.0) - length) < 1e-4
    channel = fields.channel(cut.channel)
    return replace(
        known,
        audio=Path(sources[0].source),
        start=start,
        duration=None if whole else duration,
        channel=sources[0].channels.index(channel) if cut.recording.num_channels > 1 else None,
    )


def _anchor(source: Any, folder: Path) -> None:
    """Make a relative path one from ``folder``, unless it is there from here."""
    path = Path(fields.required(fields.text(source.source, "source"), "source"))
    if not path.is_absolute() and not path.exists():
        source.source = str(folder / path)


def _tracks(cut: Any) -> Iterator[tuple[float, Any]]:
    """Yield the cuts that a cut is mixed of, with their starts; of any other, itself."""
    if type(cut).__name__ != "MixedCut":
        yield 0.0, cut
        return
    for track in cut.tracks:
        if type(track.cut).__name__ != "PaddingCut" and not track.mute:
            yield fields.seconds(track.offset, "offset") or 0.0, track.cut


def _sources(cut: Any) -> list[Any]:
    return [
        source
        for _, one in _tracks(cut)
        if getattr(one, "recording", None) is not None
        for source in one.recording.sources
    ]


def _custom(cut: Any) -> dict[str, Any]:
    """Return the custom fields of a cut; of a mixed one, those on which its tracks agree.

    Noise has no say: where tracks have supervisions, those without any don't count.
    """
    tracks = [one for _, one in _tracks(cut)]
    speech = [one for one in tracks if one.supervisions]
    parts = [fields.mapping(one.custom, "custom") for one in speech or tracks]
    first = parts[0] if parts else {}
    return {
        name: value for name, value in first.items() if all(value == p.get(name) for p in parts)
    }


def _spoken(cut: Any, folder: Path) -> list[_Spoken]:
    found = []
    for offset, one in _tracks(cut):
        aligned = [(each, _aligned(each)) for each in one.supervisions or ()]
        clocks = _clocks(one, aligned)
        for supervision, items in aligned:
            labels = _labels(supervision, items, clocks)
            if items and not labels:
                _warn_of_lost_labels(folder)
            found.append(_of_supervision(supervision, labels, offset=offset))
    return sorted(found, key=lambda spoken: spoken.start)


def _of_supervision(supervision: Any, labels: tuple[Label, ...], *, offset: float) -> _Spoken:
    custom = fields.mapping(supervision.custom, "custom")
    start, end = _times(supervision)
    return _Spoken(
        start=start + offset,
        end=end + offset,
        text=fields.text(supervision.text, "text"),
        language=fields.text(supervision.language, "language"),
        speaker=fields.label(supervision.speaker, "speaker"),
        gender=fields.text(supervision.gender, "gender"),
        split=fields.text(custom.get("split"), "split"),
        translation=fields.translation(custom),
        labels=tuple((name, round(s + offset, 8), round(e + offset, 8)) for name, s, e in labels),
    )


def _times(supervision: Any) -> tuple[float, float]:
    """Return start and end in seconds of the cut; negative where the cut begins in the middle."""
    start = float(supervision.start)
    return start, start + (fields.seconds(supervision.duration, "duration") or 0.0)


def _aligned(supervision: Any) -> list[Label]:
    """Return the aligned symbols, on whatever clock they are."""
    alignment = fields.mapping(supervision.alignment, "alignment")
    kind = next((kind for kind in ALIGNMENTS if alignment.get(kind)), None)
    return [
        (
            fields.required(fields.label(item.symbol, "symbol"), "symbol"),
            float(item.start),
            float(item.start) + (fields.seconds(item.duration, "duration") or 0.0),
        )
        for item in (alignment[kind] if kind is not None else ())
    ]


def _clocks(cut: Any, aligned: list[tuple[Any, list[Label]]]) -> tuple[float, ...]:
    """Return the seconds of the cut's clock at which its alignments' may begin, likelier first.

    Alignments count from the recording; some tools count them from the cut. Of a cut that has
    forgotten where it began, only what its labels leave no doubt of counts: they begin as their
    supervision does, or fill it.
    """
    begin = fields.seconds(cut.start, "start") or 0.0
    spoken = [(_times(one), items) for one, items in aligned if items]
    if begin or not _is_rewritten(cut) or not spoken:
        return (-begin, 0.0)
    latest = min(min(item[1] for item in items) - start for (start, _), items in spoken)
    earliest = max(max(item[2] for item in items) - end for (_, end), items in spoken)
    if latest <= EDGE:
        return (0.0,)
    return (-latest,) if latest - earliest <= EDGE else ()


def _is_rewritten(cut: Any) -> bool:
    """Tell whether the cut's audio was written anew, after it may have been cut."""
    recording = getattr(cut, "recording", None)
    return recording is not None and (
        any(source.type in ("shar", "memory") for source in recording.sources)
        or any(one.recording_id != recording.id for one in cut.supervisions)
    )


def _labels(supervision: Any, items: list[Label], clocks: tuple[float, ...]) -> tuple[Label, ...]:
    """Return labels in seconds of the cut, by the first clock that puts them in the supervision."""
    if not items:
        return ()
    start, end = _times(supervision)
    first, last = min(item[1] for item in items), max(item[2] for item in items)
    for shift in clocks:
        if first + shift >= start - EDGE and last + shift <= end + EDGE:
            return tuple((name, round(s + shift, 8), round(e + shift, 8)) for name, s, e in items)
    return ()


@cache  # once for every corpus
def _warn_of_lost_labels(folder: Path) -> None:
    logger.warning(
        "%s: phone or character alignments of some cuts are left out: nothing says where in the "
        "recording these cuts began (Shar and rewritten audio forget it), or they lie outside "
        "their supervisions; give the cuts of the recordings themselves",
        folder,
    )


def _inside(labels: list[Label], duration: float) -> tuple[Label, ...]:
    """Return the labels that are heard in the cut, cut off at its ends."""
    return tuple(
        (symbol, max(start, 0.0), min(end, duration))
        for symbol, start, end in sorted(labels, key=lambda label: label[1:])
        if end > 0 and start < duration
    )
