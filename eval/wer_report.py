"""What ``python -m eval.wer`` shows and writes: a table, ``wer.json``, a page, every utterance."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unitone import files
from unitone.eval import scores_page, scoring
from unitone.eval.metrics.edits import Step, align, confusions
from unitone.eval.metrics.error_rates import WerScore
from unitone.eval.pairs import Coverage, Pair
from unitone.eval.scores_page import Measure
from unitone.eval.statistics import Comparison
from unitone.report import page

Unit = Literal["words", "characters"]
_WORST = 50
"""Utterances shown with their alignment."""
_CONFUSIONS = 15
"""Of each kind of error."""


@dataclass(frozen=True, kw_only=True)
class WerReport:
    """Everything that ``python -m eval.wer`` found."""

    made_with: Mapping[str, Any]
    """The options of the command."""
    pairs: Sequence[Pair]
    texts: Sequence[tuple[str, str]]
    """Reference and hypothesis of each pair, normalised."""
    unit: Unit
    """What the alignments are of."""
    coverage: Coverage
    score: WerScore
    groups: dict[str, dict[str, WerScore]]
    """Field → its value → the score of those utterances."""
    other: WerScore | None
    """The score of the hypotheses compared against."""
    comparison: dict[str, Comparison]
    """``wer`` and ``cer`` → the paired test; empty without ``--against``."""


def show(report: WerReport) -> None:
    """Write the scores as a table to the standard output."""
    options = report.made_with["scoring"]
    header = ("", "WER %", "95 %", "CER %", "95 %", "sub", "del", "ins", report.unit, "utterances")
    rows = [_line(scoring.EVERYTHING, report.score, report.unit)]
    for field, groups in report.groups.items():
        rows += [_line(f"{field}={name}", one, report.unit) for name, one in groups.items()]
    if report.other is not None:
        rows.append(_line("the other", report.other, report.unit))
    scoring.show(f"{options['hyp']}, {report.score.signature}", header, rows)
    tests = {name.upper(): one for name, one in report.comparison.items()}
    scoring.show_tests(tests, options["against"], scale=100.0, lower_is_better=True)
    scoring.show_odd(report.coverage)


def _line(name: str, score: WerScore, unit: Unit) -> tuple[str, ...]:
    wer, cer = measures(score)
    edits = score.words if unit == "words" else score.characters
    counts = (edits.substitutions, edits.deletions, edits.insertions, edits.reference)
    numbers = [f"{count:,}" for count in (*counts, score.utterances)]
    return (name, wer.shown, wer.span, cer.shown, cer.span, *numbers)


def measures(score: WerScore) -> tuple[Measure, Measure]:
    """Return WER and CER in per cent."""
    return (
        Measure(value=score.wer, interval=score.interval, scale=100.0),
        Measure(value=score.cer, interval=score.cer_interval, scale=100.0),
    )


def write(report: WerReport, out: Path) -> None:
    """Write ``wer.json``, ``wer.html`` and ``utterances.jsonl`` into the folder ``out``."""
    steps = [_aligned(texts, report.unit) for texts in report.texts]
    with files.locked(out):
        files.write_json(out / "wer.json", to_json(report))
        files.write_text(out / "utterances.jsonl", _utterances(report, steps))
        files.write_text(out / "wer.html", render(report, steps))


def to_json(report: WerReport) -> dict[str, Any]:
    """Return the report as JSON values; rates are shares of 1."""
    return {
        "metric": "wer",
        "signature": report.score.signature,
        **report.score.to_json(),
        "missing": report.coverage.missing,
        "truncated": report.coverage.truncated,
        "groups": {
            field: {name: score.to_json() for name, score in groups.items()}
            for field, groups in report.groups.items()
        },
        "other": report.other.to_json() if report.other else None,
        "comparison": {name: scoring.to_json(one) for name, one in report.comparison.items()},
        "options": report.made_with,
    }


def _aligned(texts: tuple[str, str], unit: Unit) -> list[Step]:
    reference, hypothesis = texts
    if unit == "words":
        return align(reference.split(), hypothesis.split())
    return align(list(reference), list(hypothesis))


def _errors(steps: Sequence[Step]) -> Counter[str]:
    return Counter(step.kind for step in steps)


def _utterances(report: WerReport, alignments: Sequence[Sequence[Step]]) -> str:
    """One line of JSON an utterance: what was compared, and its errors."""
    lines = []
    for one, (reference, hypothesis), steps in zip(
        report.pairs, report.texts, alignments, strict=True
    ):
        found = _errors(steps)
        row = {
            "id": one.reference.id,
            "reference": reference,
            "hypothesis": hypothesis,
            "substitutions": found["sub"],
            "deletions": found["del"],
            "insertions": found["ins"],
            "missing": one.hypothesis is None,
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def render(report: WerReport, alignments: Sequence[Sequence[Step]]) -> str:
    """Return the page; the same report gives the same bytes."""
    options = report.made_with["scoring"]
    wer, cer = measures(report.score)
    headline = [("Word error rate", wer), ("Character error rate", cer)]
    if report.unit == "characters":
        headline.reverse()
    sections = [
        page.tiles(
            *((name, f"{one.shown} %", f"95 %: {one.span} %") for name, one in headline),
            (
                "Utterances with an error",
                f"{report.score.sentence_error_rate * 100:.2f} %",
                f"{report.score.wrong:,} of {report.score.utterances:,}",
            ),
        ),
        scores_page.odd(report.coverage),
        page.section("Errors", _errors_table(report)),
    ]
    if report.other is not None:
        sections.append(_comparison(report, report.other))
    sections += [_group(report, field) for field in report.groups]
    sections += [
        page.section("Most frequent errors", _confusions(alignments)),
        page.section("Most errors", _worst(report, alignments)),
        scores_page.made_by({"signature": report.score.signature}, report.made_with),
    ]
    name, one = headline[0]
    subtitle = (
        f"{options['hyp']} against {options['ref']}, {report.score.utterances:,} utterances, "
        f"{report.score.words.reference:,} words."
    )
    return page.page(f"{name} {one.shown} %", subtitle, sections)


def _errors_table(report: WerReport) -> str:
    rows = []
    for name, edits in (("Words", report.score.words), ("Characters", report.score.characters)):
        kinds = (edits.hits, edits.substitutions, edits.deletions, edits.insertions)
        rows.append((name, f"{edits.reference:,}", *(f"{kind:,}" for kind in kinds)))
        shares = (scores_page.share(kind, edits.reference) for kind in kinds)
        rows.append(("", "", *shares))
    header = ("", "In the references", "Right", "Substituted", "Left out", "Added")
    remark = (
        "Rates are errors over everything in the references. Intervals: percentile bootstrap over "
        f"{report.made_with['scoring']['together'] or 'utterance'}s."
    )
    if not report.score.characters.errors:
        remark += (
            " Without a single error the bootstrap can't see how large the true rate may be: with "
            f"95 % confidence less than {3 / report.score.utterances:.2%} of utterances are wrong."
        )
    if report.unit == "characters":
        remark += " These texts have no spaces between words: read the character error rate."
    return page.table(header, rows, numbers={1, 2, 3, 4, 5}) + page.note(remark)


def _comparison(report: WerReport, other: WerScore) -> str:
    tests = {
        name: (report.comparison[key], one, two, True)
        for name, key, one, two in zip(
            ("WER %", "CER %"),
            ("wer", "cer"),
            measures(report.score),
            measures(other),
            strict=True,
        )
    }
    options = report.made_with["scoring"]
    return scores_page.comparison(tests, this=options["hyp"], other=options["against"])


def _group(report: WerReport, field: str) -> str:
    place = 0 if report.unit == "words" else 1
    name = ("WER %", "CER %")[place]
    groups = report.groups[field]
    header = (
        field.capitalize(),
        *("WER %", "95 %", "CER %", "95 %", "Sub", "Del", "Ins"),
        report.unit.capitalize(),
        "Utterances",
    )
    rows = [_line(one, score, report.unit) for one, score in groups.items()]
    overall = measures(report.score)[place]
    return scores_page.compared(
        field,
        {one: measures(score)[place] for one, score in groups.items()},
        measure=name,
        rest=page.table(header, rows, numbers=set(range(1, len(header)))),
        reference=overall.value * overall.scale,
    )


def _confusions(alignments: Sequence[Sequence[Step]]) -> str:
    found = confusions(alignments).most_common()
    lists: dict[str, list[tuple[str, int]]] = {"Substituted": [], "Left out": [], "Added": []}
    for (reference, hypothesis), times in found:
        if reference is None:
            lists["Added"].append((str(hypothesis), times))
        elif hypothesis is None:
            lists["Left out"].append((reference, times))
        else:
            lists["Substituted"].append((f"{reference} → {hypothesis}", times))
    return scores_page.confusion_lists({kind: one[:_CONFUSIONS] for kind, one in lists.items()})


def _worst(report: WerReport, alignments: Sequence[Sequence[Step]]) -> str:
    counted = [
        (place, sum(_errors(steps).values()) - _errors(steps)["hit"])
        for place, steps in enumerate(alignments)
    ]
    worst = sorted((one for one in counted if one[1]), key=lambda one: (-one[1], one[0]))[:_WORST]
    shown = []
    for place, errors in worst:
        one, steps = report.pairs[place], alignments[place]
        length = sum(step.reference is not None for step in steps)
        remarks = [f"{errors} errors in {length} {report.unit}"]
        remarks += [
            f"{field} {one.reference.group(field)}"
            for field in ("language", "speaker")
            if one.reference.fields.get(field)
        ]
        if one.hypothesis is None:
            remarks.append("no hypothesis")
        elif one.hypothesis.truncated:
            remarks.append("cut off at the cap")
        shown.append(scores_page.utterance(one.reference.id, remarks, scores_page.alignment(steps)))
    if not shown:
        return page.note("No errors.")
    return scores_page.legend() + "".join(shown)
