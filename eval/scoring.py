"""What the scoring commands share: their options, groups of utterances, numbers as text."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import unitone
from unitone.errors import ConfigError, CorpusError
from unitone.eval.pairs import Key, Pair, Reference, References, read_references
from unitone.eval.statistics import Comparison, Interval, Resampling


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    ref: Path
    """Manifest with the references: a corpus, JSON lines with ids, trn, or Kaldi's text."""
    hyp: Path
    """Hypotheses to score: JSON lines as `python -m lm.decode` writes them, or as NeMo does
    (pred_text), trn, Kaldi's text. Those of other splits are left out."""
    against: Path | None = None
    """Other hypotheses for the same references: a paired test of the difference."""
    out: Path | None = None
    """Folder for the scores as JSON and as a page."""
    split: str | None = None
    """Only the references with this "split"."""
    limit: int | None = None
    """Only the first so many of them, as with ``python -m lm.decode --limit``."""
    decoded: bool = False
    """Only the references that the decoding of --hyp was asked for: those with a hypothesis, or in
    its ``.skipped.jsonl``. Of splits by ``lm.decode --split-by``, which no manifest has."""
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


def references(options: ReadConfig) -> References:
    """Read the references of ``options``; errors as `read_references`."""
    return read_references(
        options.ref,
        split=options.split,
        limit=options.limit,
        decoded=options.hyp if options.decoded else None,
    )


def transcripts(options: ReadConfig, *, several: bool = False) -> list[Reference]:
    """Read the references of ``options``; each has a text, or with ``several`` one or more.

    Raises:
        ConfigError, CorpusError: as `read_references`; a reference has no text.
    """
    found = references(options)
    for one in found:
        text = one.fields.get("text")
        parts = text if several and isinstance(text, list) and text else [text]
        if not all(isinstance(part, str) for part in parts):
            state = 'has no "text"' if text is None else f'must have one "text", got {text!r}'
            raise CorpusError(f"{options.ref}: reference {one.id} {state}")
    return found


def language(one: Pair) -> str | None:
    """Return the language of the reference, where it is known."""
    found = one.reference.fields.get("language")
    return found if isinstance(found, str) else None


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


def clusters(pairs: Sequence[Pair], field: str | None) -> list[Key]:
    """Return, for each pair, what is drawn together with it when resampling; None: nothing."""
    if field is None:
        return [one.key for one in pairs]
    groups(pairs, field)  # refuses a field that isn't there
    return [
        (field, one.reference.group(field))
        if one.reference.fields.get(field) is not None
        else (one.reference.id,)
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


def chance(p_value: float) -> str:
    """Spell a p-value.

    >>> chance(0.03217), chance(0.00001)
    ('p = 0.032', 'p < 0.001')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def conclusion(comparison: Comparison, *, lower_is_better: bool, alpha: float = 0.05) -> str:
    """Say in a word or two what a comparison shows at the level ``alpha``."""
    if comparison.difference == 0 or comparison.p_value >= alpha:
        return "no difference shown"
    return "better" if (comparison.difference < 0) == lower_is_better else "worse"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number with its interval, on the scale it is shown in (per cent, points).

    >>> Measure(value=0.0952, interval=Interval(low=0.09, high=0.1), scale=100.0).span
    '9.00 to 10.00'
    """

    value: float
    interval: Interval | None
    scale: float = 1.0
    spelled: Callable[[float], str] = number

    @property
    def shown(self) -> str:
        """The number."""
        return self.spelled(self.value * self.scale)

    @property
    def span(self) -> str:
        """Its interval."""
        if self.interval is None:
            return "–"
        low, high = self.interval.low * self.scale, self.interval.high * self.scale
        return f"{self.spelled(low)} to {self.spelled(high)}"

    def tile(self, name: str, unit: str = "") -> tuple[str, str, str]:
        """Return a headline number of a page."""
        return (name, self.shown + unit, f"95 %: {self.span}{unit}")

    def difference(self, test: Comparison) -> "Measure":
        """Return the difference of a paired test of what is measured."""
        return Measure(
            value=test.difference, interval=test.interval, scale=self.scale, spelled=signed
        )


def to_json(value: Interval | Comparison | None) -> dict[str, Any] | None:
    """Return an interval or a comparison as JSON values."""
    return None if value is None else asdict(value)


def finite(value: float) -> float | None:
    """Return a number as JSON has it; null where it is undefined."""
    return None if math.isnan(value) else value


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
