"""Fields of foreign records: any of them may have any type, so every reader takes them from here.

A field that is null or absent is None; one of a type that can't be meant is a `CorpusError`, which
makes the line a listed one.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from unitone.corpus.utterance import Label
from unitone.errors import CorpusError

LONGEST = 1e9
"""Seconds; no recording is longer than 30 years."""


def text(value: Any, name: str) -> str | None:
    """Return a text; None where there is none."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise CorpusError(f'field "{name}" must be a text, got {_shown(value)}')
    return value


def label(value: Any, name: str) -> str | None:
    """Return a name (of an utterance, of a speaker), which many toolkits write as a number."""
    if isinstance(value, float) and math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value, name)


def required(value: str | None, name: str) -> str:
    """Return the text of a field that has to be there."""
    if value is None:
        raise CorpusError(f'field "{name}" is missing or empty')
    return value


def seconds(value: Any, name: str) -> float | None:
    """Return a number of seconds, which may be written as a text."""
    found = _number(value)
    if value is None:
        return None
    if found is None or not 0 <= found < LONGEST:
        raise CorpusError(f'field "{name}" must be a number of seconds, got {_shown(value)}')
    return found


def quick_seconds(value: Any) -> float | None:
    """Return a plain number of seconds above 0, None for anything else; for rows."""
    return float(value) if type(value) in (float, int) and 0 < value < LONGEST else None


def channel(value: Any, name: str = "channel") -> int | None:
    """Return the number of a channel, counted from 0."""
    if value is None:
        return None
    found = _number(value)
    if found is None or not 0 <= found < 1024 or found != int(found):
        raise CorpusError(
            f'field "{name}" must be the number of one channel, from 0, got {_shown(value)}'
        )
    return int(found)


def mapping(value: Any, name: str) -> dict[str, Any]:
    """Return an object; an empty one where there is none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise CorpusError(f'field "{name}" must be an object, got {_shown(value)}')
    return dict(value)


def common(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have one name everywhere."""
    known = {name: text(record.get(name), name) for name in ("text", "language", "gender", "split")}
    return known | {"speaker": label(record.get("speaker"), "speaker")}


def translation(record: Mapping[str, Any]) -> dict[str, str]:
    """Return language → text; ``und`` where the language isn't named."""
    value = record.get("translation")
    if value is None:
        return {}
    if isinstance(value, str):
        language = text(record.get("translation_language"), "translation_language")
        return {language or "und": value}
    if isinstance(value, Mapping) and all(
        isinstance(part, str) and (part or place)
        for pair in value.items()
        for place, part in enumerate(pair)
    ):
        return dict(sorted(value.items()))
    raise CorpusError(
        f'field "translation" must be a text or an object language → text, got {_shown(value)}'
    )


def labels(record: Mapping[str, Any]) -> tuple[Label, ...]:
    """Return the time-aligned phones or characters."""
    kinds = ("phones", "characters")
    name = next((kind for kind in kinds if record.get(kind) not in (None, [])), "phones")
    value = record.get(name)
    if value is None:
        return ()
    try:
        return tuple(_label(*item) for item in value)
    except (TypeError, ValueError) as error:
        raise CorpusError(
            f'field "{name}" must be a list of [symbol, start, end], got {_shown(value)}'
        ) from error


def refuse(record: Mapping[str, Any], cures: Mapping[str, str]) -> None:
    """Refuse a record with a field whose meaning is known and isn't supported; ``cures`` has why.

    Raises:
        CorpusError: it has one.
    """
    for name, cure in cures.items():
        if record.get(name) is not None:
            raise CorpusError(f'field "{name}" is not supported: {cure}')


def renamed(record: Mapping[str, Any], others: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """Return a record in which fields that others call by other names have ours.

    Raises:
        CorpusError: two of the names hold different values, and ours isn't there.
    """
    known = dict(record)
    for name, aliases in others.items():
        found = [value for other in aliases if (value := record.get(other)) not in (None, "")]
        if not found or known.get(name) not in (None, ""):
            continue
        if any(value != found[0] for value in found):
            raise CorpusError(f'which of {", ".join(aliases)} is the "{name}"? call one so')
        known[name] = found[0]
    return known


def differing(values: Iterable[str | None]) -> str | None:
    """Return the value that all share, None where they differ."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _label(symbol: Any, start: Any, end: Any) -> Label:
    first, last = seconds(start, "start"), seconds(end, "end")
    if first is None or last is None or last < first:
        raise ValueError("a label without its times, or that ends before it starts")
    return required(label(symbol, "symbol"), "symbol"), first, last


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
