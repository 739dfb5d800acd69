"""What ``python -m eval.classify`` shows and writes: a table, ``classify.json`` and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitone import files
from unitone.eval import scores_page, scoring
from unitone.eval.metrics.accuracy import NO_LABEL, AccuracyScore, is_right
from unitone.eval.pairs import Coverage, Pair
from unitone.eval.scores_page import Measure
from unitone.eval.statistics import Comparison
from unitone.report import figures, page

_LARGEST = 30
"""Classes of a confusion matrix that can still be read; with more only the table is shown."""
_WRONG = 100
"""Wrong utterances that are listed."""


@dataclass(frozen=True, kw_only=True)
class ClassifyReport:
    """Everything that ``python -m eval.classify`` found."""

    made_with: Mapping[str, Any]
    """The options of the command."""
    field: str
    pairs: Sequence[Pair]
    coverage: Coverage
    score: AccuracyScore
    groups: dict[str, dict[str, AccuracyScore]]
    """Field → its value → the score of those utterances."""
    other: AccuracyScore | None
    """The score of the hypotheses compared against."""
    comparison: Comparison | None


def show(report: ClassifyReport) -> None:
    """Write the scores as a table to the standard output."""
    options = report.made_with["scoring"]
    header = ("", "accuracy %", "95 %", "right", "utterances")
    rows = [_line(scoring.EVERYTHING, report.score)]
    for field, groups in report.groups.items():
        rows += [_line(f"{field}={name}", one) for name, one in groups.items()]
    if report.other is not None:
        rows.append(_line("the other", report.other))
    scoring.show(f"{options['hyp']}, {report.field}", header, rows)
    classes = [
        (
            one.label,
            *(scoring.number(100 * value) for value in (one.precision, one.recall, one.f1)),
            f"{one.reference:,}",
        )
        for one in report.score.classes
    ]
    scoring.show("", (report.field, "precision %", "recall %", "F1 %", "utterances"), classes)
    if report.comparison is not None:
        tests = {"accuracy": report.comparison}
        scoring.show_tests(tests, options["against"], scale=100.0, lower_is_better=False)
    scoring.show_odd(report.coverage)


def _line(name: str, score: AccuracyScore) -> tuple[str, ...]:
    one = measure(score)
    return (name, one.shown, one.span, f"{score.right:,}", f"{score.utterances:,}")


def measure(score: AccuracyScore) -> Measure:
    """Return the accuracy in per cent."""
    return Measure(value=score.accuracy, interval=score.interval, scale=100.0)


def write(report: ClassifyReport, out: Path) -> None:
    """Write ``classify.json`` and ``classify.html`` into the folder ``out``."""
    with files.locked(out):
        files.write_json(out / "classify.json", to_json(report))
        files.write_text(out / "classify.html", render(report))


def to_json(report: ClassifyReport) -> dict[str, Any]:
    """Return the report as JSON values; shares are of 1."""
    return {
        "metric": "accuracy",
        "field": report.field,
        "signature": scoring.signature(field=report.field, ci="wilson"),
        **report.score.to_json(),
        "missing": report.coverage.missing,
        "truncated": report.coverage.truncated,
        "groups": {
            field: {name: score.to_json() for name, score in groups.items()}
            for field, groups in report.groups.items()
        },
        "other": report.other.to_json() if report.other else None,
        "comparison": {"accuracy": scoring.to_json(report.comparison)} if report.other else {},
        "options": report.made_with,
    }


def render(report: ClassifyReport) -> str:
    """Return the page; the same report gives the same bytes."""
    options = report.made_with["scoring"]
    score, one = report.score, measure(report.score)
    sections = [
        page.tiles(
            ("Accuracy", f"{one.shown} %", f"95 %: {one.span} %"),
            (
                "Balanced accuracy",
                f"{scoring.number(100 * score.balanced_accuracy)} %",
                "mean recall of the classes",
            ),
            ("Wrong", f"{score.utterances - score.right:,}", f"of {score.utterances:,}"),
        ),
        scores_page.odd(report.coverage),
        page.section("Confusions", _confusions(report)),
        page.section("Classes", _classes(score)),
    ]
    if report.other is not None and report.comparison is not None:
        tests = {"Accuracy %": (report.comparison, one, measure(report.other), False)}
        sections.append(
            scores_page.comparison(
                tests, this=options["hyp"], other=options["against"], remark=_MCNEMAR
            )
        )
    sections += [_group(report, field) for field in report.groups]
    sections += [
        page.section("Wrong labels", _wrong(report)),
        scores_page.made_by(
            {"signature": scoring.signature(field=report.field, ci="wilson")}, report.made_with
        ),
    ]
    subtitle = (
        f"{options['hyp']} against {options['ref']}, {score.utterances:,} utterances, "
        f"{len({one.reference.group(report.field) for one in report.pairs})} classes."
    )
    return page.page(f"Accuracy of {report.field} {one.shown} %", subtitle, sections)


_MCNEMAR = (
    "p is McNemar's exact test, two-sided, on the utterances that only one of the two has right; "
    "the interval of the difference is Agresti and Min's for paired shares."
)


def _confusions(report: ClassifyReport) -> str:
    score = report.score
    if len(score.labels) > _LARGEST:
        return page.note(f"{len(score.labels)} classes are too many to draw; the JSON has them.")
    known = sum(one.reference > 0 for one in score.classes)
    matrix = score.confusion[:known]
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    svg = figures.heat_map(
        "Confusion matrix",
        shares.astype(np.float64),
        rows=score.labels[:known],
        columns=score.labels,
        written=[[f"{value:,}" if value else "·" for value in row] for row in matrix.tolist()],
        xlabel="taken for",
        ylabel=report.field,
    )
    caption = "Utterances of each row's class; the deeper the colour, the larger their share of it."
    if NO_LABEL in score.labels:
        caption += f" {NO_LABEL}: no answer."
    return page.figure(svg, caption)


def _classes(score: AccuracyScore) -> str:
    rows = []
    for one in score.classes:
        precision, recall, f1 = (
            scoring.number(100 * value) for value in (one.precision, one.recall, one.f1)
        )
        around = scoring.span(one.recall_interval, scale=100.0)
        rows.append(
            (one.label, precision, recall, around, f1, f"{one.reference:,}", f"{one.hypothesis:,}")
        )
    header = ("Class", "Precision %", "Recall %", "95 %", "F1 %", "Utterances", "Taken for it")
    remark = page.note("Intervals: Wilson's score interval; utterances are taken as independent.")
    return page.table(header, rows, numbers=set(range(1, 7))) + remark


def _group(report: ClassifyReport, field: str) -> str:
    groups = report.groups[field]
    header = (field.capitalize(), "Accuracy %", "95 %", "Right", "Utterances")
    return scores_page.compared(
        field,
        {name: measure(score) for name, score in groups.items()},
        measure="Accuracy %",
        rest=page.table(
            header,
            [_line(name, score) for name, score in groups.items()],
            numbers=set(range(1, len(header))),
        ),
        reference=100 * report.score.accuracy,
    )


def _wrong(report: ClassifyReport) -> str:
    rows = []
    for one in report.pairs:
        meant = one.reference.group(report.field)
        said = one.hypothesis.label if one.hypothesis else None
        if not is_right(meant, said):
            text = one.reference.fields.get("text")
            rows.append((one.reference.id, meant, said or NO_LABEL, str(text or "")))
    if not rows:
        return page.note("None.")
    left = "" if len(rows) <= _WRONG else page.note(f"The first {_WRONG} of {len(rows):,}.")
    header = ("Utterance", "Is", "Taken for", "Text")
    return page.table(header, rows[:_WRONG], numbers=set()) + left
