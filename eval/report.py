"""One report for every metric: a table for the terminal, JSON for programs, a page for people.

A metric's command says what it has, as data (`Report`); which metric it is, nothing here knows.
With ``--out``: ``NAME.json``, ``NAME.html`` and, where the metric has some, lines in
``utterances.jsonl``. The same report gives the same bytes.
"""

import html
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unitone import files
from unitone.errors import ConfigError
from unitone.eval import scoring
from unitone.eval.pairs import Coverage, Pair
from unitone.eval.scoring import Measure
from unitone.eval.statistics import Comparison
from unitone.report import page
from unitone.report.figures import Measured, intervals

Cells = Mapping[str, Measure | int | str]
"""A row of a table, by column; a measure takes a second column for its interval."""

NAMES = ("wer", "bleu", "classify", "judge")
"""Of the reports there are; several may lie in one folder."""
_BARS = 40
"""Groups of a figure; the table has them all."""
RANDOMIZATION = (
    "The interval of the difference is from bootstrap resamples drawn for both systems together; "
    "p is the share of random swaps of their outputs (approximate randomization, two-sided) that "
    "differ at least as much."
)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A score of some utterances."""

    rows: Mapping[str, Cells]
    """Its rows by name; a single one has the name ""."""
    json: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a scoring command has to say."""

    name: str
    """Of the files."""
    options: Mapping[str, Any]
    """Of the command; ``scoring`` has those that all commands share."""
    signature: Mapping[str, str]
    """The metric and what its numbers depend on; stands first in the JSON."""
    title: str
    """Of the page."""
    subtitle: str
    caption: str
    """Of the terminal's table, after the hypotheses' file."""
    coverage: Coverage
    column: str
    """The measure that groups are drawn by."""
    row: str = ""
    """The row of ``score`` whose number is that of all utterances."""
    score: Scored
    """Of all utterances."""
    groups: Mapping[str, Mapping[str, Scored]] = field(default_factory=dict)
    """Field → its value → the score of those utterances."""
    other: Scored | None = None
    """The score of the hypotheses compared against."""
    tests: Mapping[str, Comparison] | None = field(default_factory=dict)
    """Key in the JSON → the test against them; None for a metric that has no such test."""
    compared: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Key of a test → the name of what is compared, and its column."""
    lower_is_better: bool = False
    lower_is_better_in: Collection[str] = ()
    """Keys of the tests of which that is so, where it isn't of all."""
    how_tested: str = RANDOMIZATION
    tables: Mapping[str, Mapping[str, Cells]] = field(default_factory=dict)
    """More tables for the terminal, by the name of their first column."""
    tiles: Sequence[tuple[str, str, str]] = ()
    """Headline numbers of the page: what it is, the number, a note."""
    summary: Mapping[str, str] = field(default_factory=dict)
    """Sections of the page by title, before the tests and groups."""
    details: Mapping[str, str] = field(default_factory=dict)
    """Sections after them."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What stands last in the JSON, before the options."""
    utterances: Sequence[Mapping[str, Any]] = ()
    """A line of JSON each."""


def publish(report: Report, *, out: Path | None) -> None:
    """Show the report, and write it into ``out`` if that is given."""
    sys.stdout.write(to_text(report))
    if out is not None:
        write(report, out)


def grouped(
    pairs: Sequence[Pair],
    fields: Iterable[str],
    scored: Callable[[list[int]], Scored],
    *,
    of: Mapping[str, Callable[[Pair], str]] = MappingProxyType({}),
) -> dict[str, dict[str, Scored]]:
    """Score the pairs of each value of each of the fields; ``of`` as in `scoring.groups`."""
    return {
        field: {
            name: scored(places)
            for name, places in scoring.groups(pairs, field, of=of.get(field)).items()
        }
        for field in fields
    }


def _require_own(report: Report, out: Path) -> None:
    """Refuse to write over files of a folder that has no report of ours.

    Raises:
        ConfigError: naming the first.
    """
    if any(_is_report(out / f"{name}.json") for name in NAMES):
        return
    for name in (f"{report.name}.json", f"{report.name}.html", "utterances.jsonl"):
        if (out / name).exists():
            raise ConfigError(f"--out {out} holds {name}, which is not ours; choose another --out")


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(made, dict) and "options" in made


def write(report: Report, out: Path) -> None:
    """Write all files of a report into the folder ``out``."""
    with files.locked(out):
        _require_own(report, out)
        files.write_json(out / f"{report.name}.json", to_json(report))
        if report.utterances:
            files.write_json_lines(out / "utterances.jsonl", report.utterances)
        files.write_text(out / f"{report.name}.html", to_page(report))


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON values."""
    values: dict[str, Any] = {
        **report.signature,
        **report.score.json,
        "missing": report.coverage.missing,
        "truncated": report.coverage.truncated,
        "groups": {
            field: {name: one.json for name, one in groups.items()}
            for field, groups in report.groups.items()
        },
    }
    if report.tests is not None:
        values["other"] = report.other.json if report.other else None
        values["comparison"] = {key: scoring.to_json(one) for key, one in report.tests.items()}
    return {**values, **report.more, "options": report.options}


def to_text(report: Report) -> str:
    """Return what the terminal shows: the tables, the tests, remarks on the hypotheses."""
    options = report.options["scoring"]
    rows = {name or "all": cells for name, cells in report.score.rows.items()}
    for name, groups in report.groups.items():
        rows |= _named({f"{name}={value}": one for value, one in groups.items()})
    if report.other is not None:
        rows |= _named({"the other": report.other})
    blocks = [f"{options['hyp']}, {report.caption}"]
    for first, lines in {"": rows, **report.tables}.items():
        blocks.append(f"\n{scoring.text_table(*_lines(first, lines))}")
    for key, test in (report.tests or {}).items():
        *_, difference, span, chance, conclusion = _tested(report, key, test)
        name = f"{report.compared[key][0]} against {options['against']}"
        blocks.append(f"{name}: {difference} ({span}), {chance}: {conclusion}\n")
    missing, truncated = report.coverage.missing, report.coverage.truncated
    if missing:
        blocks.append(f"{missing:,} references without a hypothesis count as empty\n")
    if truncated:
        blocks.append(f"{truncated:,} hypotheses were cut off at the cap\n")
    return "".join(blocks)


def to_page(report: Report) -> str:
    """Return the page."""
    sections = [page.tiles(*report.tiles), _coverage(report.coverage)]
    sections += [page.section(title, body) for title, body in report.summary.items()]
    if report.tests:
        sections.append(_tests(report, report.tests))
    sections += [_group(report, field) for field in report.groups]
    sections += [page.section(title, body) for title, body in report.details.items()]
    options = page.details("All options", page.pairs(report.options))
    sections.append(page.section("How it was scored", page.pairs(report.signature) + options))
    return page.page(report.title, report.subtitle, sections)


def table(first: str, rows: Mapping[str, Cells]) -> str:
    """Lay out rows for a page; ``first`` heads the column of their names."""
    header, lines = _lines(first, rows)
    return page.table(header, lines, numbers=set(range(1, len(header))))


def _lines(first: str, rows: Mapping[str, Cells]) -> tuple[list[str], list[list[str]]]:
    """Spell the header and the rows of a table."""
    header = [first]
    for name, cell in next(iter(rows.values())).items():
        header += [name, "95 %"] if isinstance(cell, Measure) else [name]
    lines = []
    for name, cells in rows.items():
        line = [name]
        for cell in cells.values():
            if isinstance(cell, Measure):
                line += [cell.shown, cell.span]
            else:
                line.append(f"{cell:,}" if isinstance(cell, int) else cell)
        lines.append(line)
    return header, lines


def _named(scores: Mapping[str, Scored]) -> dict[str, Cells]:
    """Return the rows of several scores, named after the score and the row."""
    return {
        f"{name}, {row}" if row else name: cells
        for name, one in scores.items()
        for row, cells in one.rows.items()
    }


def _tested(report: Report, key: str, test: Comparison) -> tuple[str, ...]:
    """Spell both values of a test, the difference, its interval, the chance, the conclusion."""
    assert report.other is not None
    column = report.compared[key][1]
    this, other = (_measure(one.rows[""], column) for one in (report.score, report.other))
    difference = this.difference(test)
    lower = report.lower_is_better or key in report.lower_is_better_in
    conclusion = scoring.conclusion(test, lower_is_better=lower)
    chance = scoring.chance(test.p_value)
    return (this.shown, other.shown, difference.shown, difference.span, chance, conclusion)


def _measure(cells: Cells, column: str) -> Measure:
    cell = cells[column]
    assert isinstance(cell, Measure)
    return cell


def _tests(report: Report, tests: Mapping[str, Comparison]) -> str:
    options = report.options["scoring"]
    rows = [(report.compared[key][1], *_tested(report, key, one)) for key, one in tests.items()]
    header = ("", "This", "Other", "Difference", "95 % interval", "Chance", "At the 5 % level")
    remark = page.note(
        f"This: {options['hyp']}. Other: {options['against']}. {report.how_tested} Several tests "
        "at once find something by chance more often than 5 %."
    )
    body = page.table(header, rows, numbers={1, 2, 3, 4, 5}) + remark
    return page.section("Against the other hypotheses", body)


def _group(report: Report, field: str) -> str:
    """Return the section of one grouping: a figure over a table."""
    rows = _named(report.groups[field])
    bars = [
        Measured(
            name=name,
            value=cell.value * cell.scale,
            low=cell.interval.low * cell.scale,
            high=cell.interval.high * cell.scale,
            written=cell.shown,
        )
        for name, cells in rows.items()
        if (cell := _measure(cells, report.column)).interval is not None
    ]
    drawn = ""
    if len(bars) > 1:
        overall = _measure(report.score.rows[report.row], report.column)
        left = "" if len(bars) <= _BARS else f" The first {_BARS} of {len(bars)}."
        svg = intervals(
            f"{report.column} by {field}",
            bars[:_BARS],
            xlabel=report.column,
            reference=overall.value * overall.scale,
        )
        caption = f"{report.column} with its 95 % interval; dashed: all of them.{left}"
        drawn = page.figure(svg, page.escaped(caption), wide=True)
    return page.section(f"By {html.escape(field)}", drawn + table(field.capitalize(), rows))


def _coverage(found: Coverage) -> str:
    """Return a warning about hypotheses that are missing or were cut off; empty if none is."""
    remarks = []
    if found.missing:
        remarks.append(f"{found.missing:,} references have no hypothesis and count as empty")
    if found.truncated:
        remarks.append(f"{found.truncated:,} hypotheses were cut off at the cap on their length")
    if not remarks:
        return ""
    text = f"{'; '.join(remarks)} (of {found.utterances:,})."
    return f'<p class="warning">{html.escape(text)}</p>'
