"""What the pages of all scores share: intervals, comparisons, alignments, how they were made."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unitone.eval import scoring
from unitone.eval.metrics.edits import Step
from unitone.eval.pairs import Coverage
from unitone.eval.statistics import Comparison, Interval
from unitone.report.figures import Measured, intervals
from unitone.report.page import Html, details, escaped, figure, note, pairs, row, section, table

_MOST_BARS = 40
"""Groups of a figure; the table has them all."""
_RANDOMISED = (
    "The interval of the difference is from bootstrap resamples drawn for both systems together; "
    "p is the share of random swaps of their outputs (approximate randomisation, two-sided) that "
    "differ at least as much."
)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One score on the scale it is shown in (per cent, BLEU points)."""

    value: float
    interval: Interval | None
    scale: float = 1.0

    @property
    def shown(self) -> str:
        """The number."""
        return scoring.number(self.value * self.scale)

    @property
    def span(self) -> str:
        """Its interval."""
        return scoring.span(self.interval, scale=self.scale)

    def bar(self, name: str) -> Measured | None:
        """Return the row of a figure; None without an interval."""
        if self.interval is None:
            return None
        return Measured(
            name=name,
            value=self.value * self.scale,
            low=self.interval.low * self.scale,
            high=self.interval.high * self.scale,
            written=self.shown,
        )


def compared(
    field: str, groups: Mapping[str, Measure], *, measure: str, rest: str, reference: float
) -> str:
    """Return the section of one grouping: a figure over the table ``rest``."""
    bars = [bar for name, one in groups.items() if (bar := one.bar(name)) is not None]
    drawn = ""
    if len(bars) > 1:
        left = "" if len(bars) <= _MOST_BARS else f" The first {_MOST_BARS} of {len(bars)}."
        drawn = figure(
            intervals(
                f"{measure} by {field}", bars[:_MOST_BARS], xlabel=measure, reference=reference
            ),
            escaped(f"{measure} with its 95 % interval; dashed: all of them.{left}"),
            wide=True,
        )
    return section(f"By {html.escape(field)}", drawn + rest)


def comparison(
    tests: Mapping[str, tuple[Comparison, Measure, Measure, bool]],
    *,
    this: str,
    other: str,
    remark: str = _RANDOMISED,
) -> str:
    """Return the section of a paired test.

    Args:
        tests: name of the measure → its test, this system's and the other's score, and whether
            less is better.
        this: the hypotheses.
        other: what they are compared against.
        remark: how the test works.
    """
    rows = []
    for name, (test, one, two, lower_is_better) in tests.items():
        rows.append(
            (
                name,
                one.shown,
                two.shown,
                scoring.signed(test.difference * one.scale),
                scoring.span(test.interval, scale=one.scale, spelled=scoring.signed),
                scoring.chance(test.p_value),
                scoring.verdict(test, lower_is_better=lower_is_better),
            )
        )
    header = ("", "This", "Other", "Difference", "95 % interval", "Chance", "At the 5 % level")
    said = note(
        f"This: {this}. Other: {other}. {remark} Several tests at once find something by chance "
        "more often than 5 %."
    )
    body = table(header, rows, numbers={1, 2, 3, 4, 5}) + said
    return section("Against the other hypotheses", body)


def odd(found: Coverage) -> str:
    """Return a remark on hypotheses that are missing or were cut off; empty if none is."""
    said = []
    if found.missing:
        said.append(f"{found.missing:,} references have no hypothesis and count as empty")
    if found.truncated:
        said.append(f"{found.truncated:,} hypotheses were cut off at the cap on their length")
    if not said:
        return ""
    share = f"of {found.utterances:,}"
    return f'<p class="warning">{html.escape("; ".join(said))} ({share}).</p>'


def alignment(steps: Sequence[Step]) -> Html:
    """Lay out an alignment: reference above, hypothesis below, colours for what differs."""
    cells = "".join(
        f'<span class="{step.kind}"><b>{_side(step.reference)}</b>'
        f"<i>{_side(step.hypothesis)}</i></span>"
        for step in steps
    )
    return Html(f'<div class="alignment">{cells}</div>')


def _side(word: str | None) -> str:
    if word is None:
        return "∅"
    return "␣" if word == " " else html.escape(word)


def legend() -> str:
    """Say what the colours of `alignment` mean."""
    example = [
        Step(kind="sub", reference="reference", hypothesis="hypothesis"),
        Step(kind="del", reference="left out", hypothesis=None),
        Step(kind="ins", reference=None, hypothesis="added"),
    ]
    return alignment(example)


def utterance(title: str, remarks: Iterable[str], body: Html) -> str:
    """Return one utterance of a list: its id, remarks on it, what it is."""
    notes = "".join(f"<span>{escaped(remark)}</span>" for remark in remarks)
    return f'<div class="utterance"><p><strong>{escaped(title)}</strong>{notes}</p>{body}</div>'


def share(part: int, whole: int) -> str:
    """Spell ``part`` of ``whole`` in per cent."""
    return f"{100 * part / whole:,.2f} %" if whole else "–"


def confusion_lists(lists: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """Set lists of errors, the most frequent first, side by side."""
    tables = [
        table((name, "Times"), [(what, f"{times:,}") for what, times in found], numbers={1})
        for name, found in lists.items()
        if found
    ]
    return row(*tables) if tables else note("No errors.")


def made_by(signatures: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """Return the section that says how the numbers came to be."""
    return section("How it was scored", pairs(signatures) + details("All options", pairs(options)))
