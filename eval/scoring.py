"""What the scoring commands share: their options, groups of utterances, numbers as text."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import unitone
from unitone.errors import ConfigError
from unitone.eval.pairs import Coverage, Pair
from unitone.eval.statistics import Comparison, Interval, Resampling

EVERYTHING = "all"
"""Name of the row over all utterances."""


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    ref: Path
    """Manifest with the references: a corpus, or JSON lines with ids."""
    hyp: Path
    """Hypotheses to score, JSON lines as `python -m lm.decode` writes them."""
    against: Path | None = None
    """Other hypotheses for the same references: a paired test of the difference."""
    out: Path | None = None
    """Folder for the scores as JSON and as a page."""
    split: str | None = None
    """Only the references with this "split"."""
    limit: int | None = None
    """Only the first so many of them, as with ``python -m lm.decode --limit``."""
    by: tuple[str, ...] = ()
    """Fields of the manifest: a score for each of their values (language, speaker, ...)."""
    allow_missing: bool = False
    """Count references without a hypothesis as empty instead of refusing."""


@dataclass(frozen=True, kw_only=True)
class ScoringConfig(ReadConfig):
    resampling: Resampling
    together: str | None = None
    """A field of the manifest whose equal values are resampled together, such as speaker: their
    utterances are not independent. Under some 20 values the intervals are rough. Default: every
    utterance by itself."""


def groups(
    pairs: Sequence[Pair], field: str, *, of: Callable[[Pair], str] | None = None
) -> dict[str, list[int]]:
    """Return the places of the pairs of each value of ``field``, by name.

    Args:
        pairs: what is grouped.
        field: a field of the references.
        of: the value, where it isn't simply the field's.

    Raises:
        ConfigError: no reference has the field.
    """
    if of is None and not any(one.reference.fields.get(field) is not None for one in pairs):
        known = sorted({name for one in pairs[:100] for name in one.reference.fields})
        raise ConfigError(f"no reference has a field {field!r}; there are {', '.join(known)}")
    found: dict[str, list[int]] = {}
    for place, one in enumerate(pairs):
        found.setdefault(of(one) if of else one.reference.group(field), []).append(place)
    return dict(sorted(found.items()))


def clusters(pairs: Sequence[Pair], field: str | None) -> list[str] | None:
    """Return what is drawn together when resampling; None = every pair by itself."""
    if field is None:
        return None
    groups(pairs, field)  # refuses a field that isn't there
    return [
        f"{field}: {one.reference.group(field)}"
        if one.reference.fields.get(field) is not None
        else f"id: {one.reference.id}"
        for one in pairs
    ]


def signature(**parts: object) -> str:
    """Spell what a score depends on in a line, in the manner of sacreBLEU's."""
    shown = {**parts, "unitone": unitone.__version__}
    return "|".join(f"{name}:{value}" for name, value in shown.items() if value is not None)


def resampling_parts(resampling: Resampling, *, together: str | None) -> dict[str, object]:
    """Return what a signature says of the interval."""
    return {"bs": resampling.resamples, "by": together, "seed": resampling.seed}


def number(value: float, *, digits: int = 2) -> str:
    """Spell a number, an undefined one as a dash.

    >>> number(9.5238), number(float("nan"))
    ('9.52', '–')
    """
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def signed(value: float, *, digits: int = 2) -> str:
    """Spell a difference with its sign.

    >>> signed(-1.234), signed(0.5)
    ('−1.23', '+0.50')
    """
    return "–" if math.isnan(value) else f"{value:+,.{digits}f}".replace("-", "−")


def span(
    interval: Interval | None, *, scale: float = 1.0, spelled: Callable[[float], str] = number
) -> str:
    """Spell an interval.

    >>> span(Interval(low=0.09, high=0.1), scale=100.0)
    '9.00 to 10.00'
    """
    if interval is None:
        return "–"
    return f"{spelled(interval.low * scale)} to {spelled(interval.high * scale)}"


def chance(p_value: float) -> str:
    """Spell a p-value.

    >>> chance(0.03217), chance(0.00001)
    ('p = 0.032', 'p < 0.001')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def verdict(comparison: Comparison, *, lower_is_better: bool, alpha: float = 0.05) -> str:
    """Say in a word or two what a comparison shows at the level ``alpha``."""
    if comparison.difference == 0 or comparison.p_value >= alpha:
        return "no difference shown"
    return "better" if (comparison.difference < 0) == lower_is_better else "worse"


def to_json(value: Interval | Comparison | None) -> Any:
    """Return an interval or a comparison as JSON values."""
    if value is None:
        return None
    if isinstance(value, Interval):
        return {"low": value.low, "high": value.high}
    return {
        "difference": value.difference,
        "interval": to_json(value.interval),
        "p_value": value.p_value,
    }


def finite(value: float) -> float | None:
    """Return a number as JSON has it; null where it is undefined."""
    return None if math.isnan(value) else value


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to the standard output: first column flush left, the others flush right."""
    sys.stdout.write(f"{title}\n{text_table(header, rows)}")


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table for a terminal.

    >>> print(text_table(("", "WER %"), [("all", "9.52"), ("de", "10.10")]), end="")
         WER %
    all   9.52
    de   10.10
    """
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    spelled = (
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return "".join(f"{line.rstrip()}\n" for line in spelled)


def show_tests(
    tests: Mapping[str, Comparison], against: str | None, *, scale: float, lower_is_better: bool
) -> None:
    """Write what the paired tests found to the standard output."""
    for name, test in tests.items():
        difference = signed(test.difference * scale)
        around = span(test.interval, scale=scale, spelled=signed)
        shown = verdict(test, lower_is_better=lower_is_better)
        sys.stdout.write(
            f"{name} against {against}: {difference} ({around}), {chance(test.p_value)}: {shown}\n"
        )


def show_odd(found: Coverage) -> None:
    """Write to the standard output how many hypotheses are missing or were cut off."""
    if found.missing:
        sys.stdout.write(f"{found.missing:,} references without a hypothesis count as empty\n")
    if found.truncated:
        sys.stdout.write(f"{found.truncated:,} hypotheses were cut off at the cap\n")
