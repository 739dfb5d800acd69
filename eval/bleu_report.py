"""What ``python -m eval.bleu`` shows and writes: a table, ``bleu.json`` and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitone import files
from unitone.eval import scores_page, scoring
from unitone.eval.metrics.edits import align
from unitone.eval.metrics.translation import TranslationScore
from unitone.eval.pairs import Coverage, Pair
from unitone.eval.scores_page import Measure
from unitone.eval.statistics import Comparison
from unitone.report import page

_NAMES = {"bleu": "BLEU", "chrf": "chrF2"}
_WORST = 40
"""Sentences shown beside their reference."""


@dataclass(frozen=True, kw_only=True)
class BleuReport:
    """Everything that ``python -m eval.bleu`` found."""

    made_with: Mapping[str, Any]
    """The options of the command."""
    pairs: Sequence[Pair]
    texts: Sequence[tuple[str, str]]
    """Reference and hypothesis of each pair."""
    sentence_chrf: Sequence[float]
    """chrF2 of each pair; unlike BLEU it is defined for a sentence."""
    coverage: Coverage
    score: TranslationScore
    groups: dict[str, dict[str, TranslationScore]]
    """Field → its value → the score of those sentences."""
    other: TranslationScore | None
    """The score of the hypotheses compared against."""
    comparison: dict[str, Comparison]
    """``bleu`` and ``chrf`` → the paired test; empty without ``--against``."""


def show(report: BleuReport) -> None:
    """Write the scores as a table to the standard output."""
    options = report.made_with["scoring"]
    header = ("", "BLEU", "95 %", "chrF", "95 %", "brevity", "sentences")
    rows = [_line(scoring.EVERYTHING, report.score)]
    for field, groups in report.groups.items():
        rows += [_line(f"{field}={name}", one) for name, one in groups.items()]
    if report.other is not None:
        rows.append(_line("the other", report.other))
    scoring.show(f"{options['hyp']}, {report.score.signature}", header, rows)
    tests = {_NAMES[name]: one for name, one in report.comparison.items()}
    scoring.show_tests(tests, options["against"], scale=1.0, lower_is_better=False)
    scoring.show_odd(report.coverage)


def _line(name: str, score: TranslationScore) -> tuple[str, ...]:
    bleu, chrf = measures(score)
    brevity = scoring.number(score.brevity_penalty, digits=3)
    return (name, bleu.shown, bleu.span, chrf.shown, chrf.span, brevity, f"{score.sentences:,}")


def measures(score: TranslationScore) -> tuple[Measure, Measure]:
    """Return BLEU and chrF."""
    return (
        Measure(value=score.bleu, interval=score.interval),
        Measure(value=score.chrf, interval=score.chrf_interval),
    )


def write(report: BleuReport, out: Path) -> None:
    """Write ``bleu.json`` and ``bleu.html`` into the folder ``out``."""
    with files.locked(out):
        files.write_json(out / "bleu.json", to_json(report))
        files.write_text(out / "bleu.html", render(report))


def to_json(report: BleuReport) -> dict[str, Any]:
    """Return the report as JSON values; BLEU and chrF run from 0 to 100."""
    return {
        "metric": "bleu",
        "signature": report.score.signature,
        "chrf_signature": report.score.chrf_signature,
        **report.score.to_json(),
        "missing": report.coverage.missing,
        "truncated": report.coverage.truncated,
        "groups": {
            field: {
                name: {"signature": score.signature, **score.to_json()}
                for name, score in groups.items()
            }
            for field, groups in report.groups.items()
        },
        "other": report.other.to_json() if report.other else None,
        "comparison": {name: scoring.to_json(one) for name, one in report.comparison.items()},
        "options": report.made_with,
    }


def render(report: BleuReport) -> str:
    """Return the page; the same report gives the same bytes."""
    options = report.made_with["scoring"]
    score = report.score
    bleu, chrf = measures(score)
    sections = [
        page.tiles(
            ("BLEU", bleu.shown, f"95 %: {bleu.span}"),
            ("chrF2", chrf.shown, f"95 %: {chrf.span}"),
            (
                "Length",
                scoring.number(score.ratio, digits=3),
                f"{score.hypothesis_words:,} words for {score.reference_words:,}",
            ),
        ),
        scores_page.odd(report.coverage),
        page.section("What BLEU is made of", _parts(report)),
    ]
    if report.other is not None:
        sections.append(_comparison(report, report.other))
    sections += [_group(report, field) for field in report.groups]
    sections += [
        page.section("Least like their reference", _worst(report)),
        scores_page.made_by(
            {"BLEU": score.signature, "chrF2": score.chrf_signature}, report.made_with
        ),
    ]
    subtitle = f"{options['hyp']} against {options['ref']}, {score.sentences:,} sentences."
    return page.page(f"BLEU {bleu.shown}", subtitle, sections)


def _parts(report: BleuReport) -> str:
    score = report.score
    header = ("1-grams right", "2-grams", "3-grams", "4-grams", "Brevity penalty")
    row = [f"{value:.1f} %" for value in score.precisions]
    row.append(scoring.number(score.brevity_penalty, digits=3))
    remark = page.note(
        "BLEU is the geometric mean of the shares of n-grams that are in the reference, times the "
        "brevity penalty; chrF2 compares n-grams of characters. Intervals: percentile bootstrap "
        f"over {report.made_with['scoring']['together'] or 'sentence'}s. One reference each; "
        "scores with different signatures, or on different sentences, don't compare."
    )
    return page.table(header, [row], numbers=set(range(5))) + remark


def _comparison(report: BleuReport, other: TranslationScore) -> str:
    tests = {
        name: (report.comparison[key], one, two, False)
        for name, key, one, two in zip(
            ("BLEU", "chrF2"),
            ("bleu", "chrf"),
            measures(report.score),
            measures(other),
            strict=True,
        )
    }
    options = report.made_with["scoring"]
    return scores_page.comparison(tests, this=options["hyp"], other=options["against"])


def _group(report: BleuReport, field: str) -> str:
    groups = report.groups[field]
    header = (field.capitalize(), "BLEU", "95 %", "chrF2", "95 %", "Brevity penalty", "Sentences")
    return scores_page.compared(
        field,
        {name: measures(score)[0] for name, score in groups.items()},
        measure="BLEU",
        rest=page.table(
            header,
            [_line(name, score) for name, score in groups.items()],
            numbers=set(range(1, len(header))),
        ),
        reference=report.score.bleu,
    )


def _worst(report: BleuReport) -> str:
    """Show the sentences with the lowest chrF."""
    values = report.sentence_chrf
    worst = sorted(range(len(values)), key=lambda place: (values[place], place))[:_WORST]
    shown = []
    for place in worst:
        one, (reference, hypothesis) = report.pairs[place], report.texts[place]
        if reference == hypothesis:
            break
        source = one.reference.fields.get("text")
        remarks = [f"to {one.key[1]}", f"chrF2 {values[place]:.1f}"]
        remarks += ["no hypothesis"] if one.hypothesis is None else []
        remarks += [f"source: {source}"] if source else []
        steps = align(reference.split(), hypothesis.split())
        shown.append(scores_page.utterance(one.reference.id, remarks, scores_page.alignment(steps)))
    if not shown:
        return page.note("Every translation is its reference.")
    return scores_page.legend() + "".join(shown)
