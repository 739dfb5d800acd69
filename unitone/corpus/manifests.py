"""Readers of manifests: each takes a path and yields a row, or a reason, for every line.

A row's fields are read when its entry is asked for, as the toolkit means them whose form it is; a
known one that isn't supported makes the line a listed one.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unitone.corpus import fields
from unitone.corpus.lines import Line, json_lines, read_lines
from unitone.corpus.utterance import Entry, Row, Skipped, Utterance
from unitone.errors import ConfigError, CorpusError

Reader = Callable[[Path], Iterator[Row | Skipped]]

SPLITS = ("train", "dev", "test")
"""Common Voice's lists that are a split."""
_UNITS = (
    *("", "_s", "_sec", "_secs", "_second", "_seconds", "_ms", "_msec", "_millis", "_milliseconds"),
    *("_time", "_times", "_at", "_ts", "_timestamp", "_pos", "_position"),
    *("_frame", "_frames", "_sample", "_samples"),
)
_TIMES = {  # what other programs call the place of a segment
    f"{word}{unit}" for word in ("start", "begin", "end", "stop", "onset", "offset")
    for unit in _UNITS
} | {"segment", "segments", "timestamps"}  # fmt: skip
_CHANNELS = {"channels", *(f"channel_{word}" for word in ("id", "idx", "index", "num", "number"))}
_PLAIN_NAMES = {
    **dict.fromkeys(
        _TIMES - {"start", "offset", "end"},
        'give "start" and "duration", or "start" and "end", in seconds',
    ),
    **dict.fromkeys(_CHANNELS | {"channel_selector"}, 'give one "channel"'),
    "source_lang": 'give "language", and a translation in "translation"',
    "target_lang": 'give "translation": {language: text}',
}
_OTHER_NAMES = {
    "text": ("transcript", "transcription", "sentence"),
    "language": ("lang", "locale"),
    "speaker": ("speaker_id", "spk_id", "client_id"),
}
"""What other toolkits call fields of ours, read where ours isn't there."""
_NEMO_NAMES = {
    "channels": 'give the number of one channel in "channel_selector"; of how many there are, in '
    '"num_channels"',
    "text_filepath": 'put the text itself into "text"',
    "context": "prompts of SALM are no speech",
    "shard_id": "unpack the tar files and leave it out",
    "_audio_key": "unpack the tar files",
    **dict.fromkeys(_TIMES - {"offset"}, 'give "offset" and "duration", in seconds'),
    **dict.fromkeys(_CHANNELS - {"channels"} | {"channel"}, 'give "channel_selector"'),
}
_TRANSLATES = ("ast", "s2t_translation")


def _entry(
    path: Path, convert: Callable[[dict[str, Any], Line], Utterance], record: Any, line: Line
) -> Entry:
    """Return what ``convert`` makes of a record, or why it can't."""
    try:
        return convert(record, line)
    except (CorpusError, OSError) as error:
        name = record.get("id")
        return Skipped(
            id=name if isinstance(name, str) else None,
            line=line.number,
            reason=f"{path.name} line {line.number}: {error}",
        )


def read_plain(path: Path) -> Iterator[Row | Skipped]:
    """Read our own JSON lines."""

    def convert(record: dict[str, Any], line: Line) -> Utterance:
        fields.refuse(record, _PLAIN_NAMES)
        record = fields.renamed(record, _OTHER_NAMES)
        start, duration = _plain_times(record)
        return Utterance(
            id=fields.required(fields.label(record.get("id"), "id"), "id"),
            line=line.number,
            audio=_audio(path, record.get("audio"), "audio"),
            start=start or 0.0,
            duration=None if start is None else duration,
            stated_duration=duration or None,
            channel=fields.channel(record.get("channel")),
            translation=fields.translation(record),
            labels=fields.labels(record),
            **fields.common(record),
        )

    for line, record in json_lines(path):
        if isinstance(record, Skipped):
            yield record
            continue
        yield Row(
            id=_quick_id(record),
            seconds=fields.quick_seconds(record.get("duration")),
            split=record.get("split") or None,
            entry=partial(_entry, path, convert, record, line),
        )


def _quick_id(record: Mapping[str, Any]) -> str | None:
    """Return the id as `fields.label` reads it; None where it refuses."""
    value = record.get("id")
    if type(value) is str:
        return value or None
    try:
        return fields.label(value, "id")
    except CorpusError:
        return None


def _plain_times(record: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return start and duration; a duration without a start is that of the whole recording."""
    names = ("start", "offset", "end", "duration")
    start, offset, end, duration = (fields.seconds(record.get(name), name) for name in names)
    if start is not None and offset not in (None, start):
        raise CorpusError(f'fields "start" ({start:g}) and "offset" ({offset:g}) differ')
    start = offset if start is None else start
    if end is not None:
        start = start or 0.0
        if duration is not None and abs(start + duration - end) > 0.01:
            raise CorpusError(
                f'fields "start" ({start:g}), "duration" ({duration:g}) and "end" ({end:g}) '
                "contradict each other"
            )
        duration = end - start if duration is None else duration
    if start is not None and duration is not None and duration <= 0:
        raise CorpusError(f"a segment of {duration:g} s")
    return start, duration


def read_nemo(path: Path) -> Iterator[Row | Skipped]:
    """Read a NeMo manifest; segments of one file and start are told apart by their ids."""
    taken: dict[str, tuple[Any, ...]] = {}
    for line, record in json_lines(path):
        if isinstance(record, Skipped):
            yield record
            continue
        try:
            name = _nemo_name(record, taken)
        except CorpusError:
            name = None
        yield Row(
            id=name,
            seconds=fields.quick_seconds(record.get("duration")),
            split=record.get("split") or None,
            entry=partial(_entry, path, partial(_nemo_utterance, path, name), record, line),
        )


def _nemo_name(record: Mapping[str, Any], taken: dict[str, tuple[Any, ...]]) -> str:
    """Return the id, or one made of the place of the segment; note a made one in ``taken``.

    Raises:
        CorpusError: the place can't be told.
    """
    fields.refuse(record, _NEMO_NAMES)
    offset, duration, channel = _nemo_place(record)
    name = fields.label(record.get("id"), "id")
    if name is None:
        audio = fields.required(fields.text(record.get("audio_filepath"), ""), "audio_filepath")
        target = fields.text(record.get("target_lang"), "target_lang")
        name = _nemo_id(audio, offset, duration, channel, target, taken)
    return name


def _nemo_place(record: Mapping[str, Any]) -> tuple[float | None, float | None, int | None]:
    """Return offset, duration and channel."""
    offset = fields.seconds(record.get("offset"), "offset")
    duration = fields.seconds(record.get("duration"), "duration") or None  # 0: not known
    if offset and duration is None and record.get("duration") is not None:
        raise CorpusError("a segment of 0 s")
    selected = record.get("channel_selector")
    return (
        offset,
        duration,
        None if selected == "average" else fields.channel(selected, "channel_selector"),
    )


def _nemo_utterance(path: Path, name: str | None, record: dict[str, Any], line: Line) -> Utterance:
    fields.refuse(record, _NEMO_NAMES)
    audio = _audio(path, record.get("audio_filepath"), "audio_filepath")
    offset, duration, channel = _nemo_place(record)
    return Utterance(
        id=fields.required(name or fields.label(record.get("id"), "id"), "id"),
        line=line.number,
        audio=audio,
        start=offset or 0.0,
        duration=duration,
        stated_duration=duration,
        channel=channel,
        **_nemo_texts(record),
    )


def _nemo_id(
    audio: str,
    offset: float | None,
    duration: float | None,
    channel: int | None,
    target: str | None,
    taken: dict[str, tuple[Any, ...]],
) -> str:
    """Return the id of a segment, and note it in ``taken``: as short as tells it from others.

    A second line of the very same segment has the same id, and is a duplicate.
    """
    stem, segment = str(Path(audio).with_suffix("")), (offset or 0.0, duration, channel, target)
    longer = f"{stem}-{offset or 0.0!r}-{duration!r}{'' if channel is None else f'-{channel}'}"
    name = stem if offset is None else f"{stem}-{offset:.3f}"
    for other in (longer, f"{longer}-{target}"):
        if taken.get(name, segment) != segment:
            name = other
    taken.setdefault(name, segment)
    return name


def _nemo_texts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of text; of Canary's manifests, ``text`` is in the target language."""
    known: dict[str, Any] = fields.common(record)
    source, target, answer, task, lang = (
        fields.text(record.get(name), name)
        for name in ("source_lang", "target_lang", "answer", "taskname", "lang")
    )
    task = task or fields.text(record.get("task"), "task")
    if source is not None and target is None:
        target = lang
    known["text"] = known["text"] or answer
    known["language"] = known["language"] or source or lang
    known["translation"] = fields.translation(record)
    language = known["language"]
    if task in _TRANSLATES and target is None:
        raise CorpusError(f'taskname {task!r} without a "target_lang"')
    if target is not None and target != language:
        if language is None:
            raise CorpusError(f'"target_lang" {target!r} without a "source_lang"')
        if known["text"] is not None:
            known["translation"] = {**known["translation"], target: known["text"]}
        known["text"] = None
    return known


def read_fairseq(path: Path) -> Iterator[Row | Skipped]:
    """Read a fairseq TSV.

    Raises:
        CorpusError: the file of texts has more lines or fewer.
    """
    texts = _fairseq_texts(path)
    if texts is not None:
        named = sum(1 for _ in _without_blank_end(path)) - 1
        if len(texts) != named:
            raise CorpusError(
                f"{fairseq_texts_file(path)} has {len(texts)} lines, {path} names {named} "
                "recordings: they don't belong together"
            )
    rows = _without_blank_end(path)
    first = next(rows, Line(1, ""))
    if first.text is None:
        raise CorpusError(first.error)
    root = path.parent / first.text.strip()
    for row in rows:
        name, _, samples = (row.text or "").partition("\t")
        text = None if texts is None else texts[row.number - 2]
        reason = row.error or (text.error if text is not None else "")
        if not reason and (not name or not Path(name).name or not samples.strip().isdecimal()):
            shown = (row.text or "").strip()
            reason = f'{path.name} line {row.number}: expected "path<TAB>samples", got {shown!r}'
        if reason:
            yield Skipped(line=row.number, reason=reason)
            continue
        utterance = Utterance(
            id=str(Path(name).with_suffix("")),
            line=row.number,
            audio=root / name,
            stated_duration=int(samples) / 16_000 or None,
            text=None if text is None else text.text,
        )
        yield _row(utterance)


def _without_blank_end(path: Path) -> Iterator[Line]:
    """Yield the first line and all to the last that isn't blank."""
    blank: list[Line] = []
    for line in read_lines(path):
        if line.number > 1 and line.text is not None and not line.text.strip():
            blank.append(line)
            continue
        yield from blank
        blank.clear()
        yield line


def fairseq_texts_file(path: Path) -> Path | None:
    """Return the file that holds the words of a fairseq TSV, None where there is none."""
    beside = (path.with_suffix(suffix) for suffix in (".wrd", ".ltr"))
    return next((file for file in beside if file.is_file()), None)


def _fairseq_texts(path: Path) -> list[Line] | None:
    file = fairseq_texts_file(path)
    if file is None:
        return None
    lines = list(read_lines(file))
    if file.suffix == ".ltr":
        lines = [
            line.with_text(line.text.replace(" ", "").replace("|", " ") if line.text else line.text)
            for line in lines
        ]
    return [line.with_text(None if line.text is None else line.text.strip()) for line in lines]


def _row(utterance: Utterance) -> Row:
    """Return the row of an utterance of a TSV, whose few fields are read at once."""
    return Row(utterance.id, utterance.stated_duration, utterance.split, lambda: utterance)


def read_common_voice(path: Path) -> Iterator[Row | Skipped]:
    """Read a TSV of Common Voice: ``clips/`` beside it, its name the split, a line a recording."""
    lines = read_lines(path)
    header = next(lines)
    names = (header.text or "").split("\t")
    for line in lines:
        if line.text is None:
            yield Skipped(line=line.number, reason=line.error)
            continue
        values = line.text.split("\t")
        if len(values) != len(names):
            reason = (
                f"{path.name} line {line.number}: {len(values)} columns, the first line has "
                f"{len(names)}"
            )
            yield Skipped(line=line.number, reason=reason)
            continue
        row = dict(zip(names, values, strict=True))
        if not row["path"]:
            yield Skipped(line=line.number, reason=f"{path.name} line {line.number}: no path")
            continue
        utterance = Utterance(
            id=str(Path(row["path"]).with_suffix("")),
            line=line.number,
            audio=path.parent / "clips" / row["path"],
            text=_unquoted(row["sentence"]),
            speaker=row.get("client_id") or None,
            gender=row.get("gender") or None,
            language=row.get("locale") or None,
            split=path.stem if path.stem in SPLITS else None,
        )
        yield _row(utterance)


def _unquoted(sentence: str) -> str | None:
    """Undo the quotes that a writer of CSV puts around a sentence with quotes in it."""
    if sentence.startswith('"') and sentence.endswith('"') and '""' in sentence[1:-1]:
        (sentence,) = next(csv.reader([sentence]))
    return sentence or None


def tsv_reader(path: Path) -> Reader:
    """Return the reader of a TSV, by its first line.

    Raises:
        ConfigError: it is neither fairseq's nor Common Voice's.
    """
    first = next(read_lines(path), None)
    names = (first.text or "").split("\t") if first is not None else []
    if {"path", "sentence"} <= set(names):
        return read_common_voice
    if len(names) > 1:
        raise ConfigError(
            f"--manifest {path}: a TSV with the columns {', '.join(names)}; read are fairseq's (a "
            "folder on the first line) and Common Voice's (columns path and sentence)"
        )
    return read_fairseq


def _audio(path: Path, value: Any, name: str) -> Path:
    return path.parent / fields.required(fields.text(value, name), name)
