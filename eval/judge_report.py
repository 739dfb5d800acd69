"""What ``python -m eval.judge score`` shows and writes: a table, ``judge.json``, a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitone import config as configs
from unitone import files
from unitone.eval import scores_page, scoring
from unitone.eval.judge.judge import Origin
from unitone.eval.metrics.edits import align
from unitone.eval.metrics.error_rates import WerScore, character_errors
from unitone.eval.pairs import Coverage, Pair
from unitone.eval.statistics import Comparison
from unitone.eval.wer_report import measures
from unitone.report import page

FLOOR, SYNTHESISED, OTHER = "floor", "synthesised", "other"
NAMES = {FLOOR: "real recordings (floor)", SYNTHESISED: "synthesised", OTHER: "the other"}
_WORST = 30
"""Utterances shown with their alignment."""


@dataclass(frozen=True, kw_only=True)
class JudgeReport:
    """Everything that ``python -m eval.judge score`` found."""

    made_with: Mapping[str, Any]
    """The options of the command."""
    judge: Origin
    shared_voices: tuple[str, ...]
    """Names of voices that the judge was trained on and judges."""
    pairs: Sequence[Pair]
    texts: Mapping[str, Sequence[tuple[str, str]]]
    """``floor``, ``synthesised`` and perhaps ``other`` → what was meant and understood."""
    coverage: Coverage
    scores: Mapping[str, WerScore]
    groups: Mapping[str, Mapping[str, Mapping[str, WerScore]]]
    """Field → its value → the scores of those utterances."""
    comparisons: Mapping[str, Mapping[str, Comparison]]
    """``floor`` and perhaps ``other`` → the synthesised speech against it: ``wer``, ``cer``."""


def show(report: JudgeReport) -> None:
    """Write the scores as a table to the standard output."""
    options = report.made_with["scoring"]
    title = f"{options['hyp']}, {report.scores[SYNTHESISED].signature}"
    scoring.show(title, _HEADER, _rows(report))
    scoring.show_odd(report.coverage)


def to_json(report: JudgeReport) -> dict[str, Any]:
    """Return the report as JSON values; rates are shares of 1."""
    return {
        "metric": "judge",
        "signature": report.scores[SYNTHESISED].signature,
        **{name: score.to_json() for name, score in report.scores.items()},
        "difference": _tests(report.comparisons[FLOOR]),
        "comparison": _tests(report.comparisons.get(OTHER, {})),
        "missing": report.coverage.missing,
        "truncated": report.coverage.truncated,
        "groups": {
            field: {
                value: {name: score.to_json() for name, score in scores.items()}
                for value, scores in groups.items()
            }
            for field, groups in report.groups.items()
        },
        "shared_voices": list(report.shared_voices),
        "judge": configs.to_dict(report.judge),
        "options": report.made_with,
    }


def write(report: JudgeReport, out: Path) -> None:
    """Write ``judge.json``, ``judge.html`` and ``utterances.jsonl`` into the folder ``out``."""
    with files.locked(out):
        files.write_json(out / "judge.json", to_json(report))
        files.write_text(out / "utterances.jsonl", _utterances(report))
        files.write_text(out / "judge.html", render(report))


_HEADER = ("", "CER %", "95 %", "WER %", "95 %", "utterances")


def _rows(report: JudgeReport) -> list[tuple[str, ...]]:
    rows = [_line(NAMES[name], score) for name, score in report.scores.items()]
    for against, tests in report.comparisons.items():
        cells = [_difference(tests[key]) for key in ("cer", "wer")]
        rows.append((f"synthesised − {against}", *cells[0], *cells[1], ""))
    for field, groups in report.groups.items():
        for value, scores in groups.items():
            rows += [_line(f"{field}={value}, {name}", score) for name, score in scores.items()]
    return rows


def _line(name: str, score: WerScore) -> tuple[str, ...]:
    wer, cer = measures(score)
    return (name, cer.shown, cer.span, wer.shown, wer.span, f"{score.utterances:,}")


def _difference(test: Comparison) -> tuple[str, str]:
    around = scoring.span(test.interval, scale=100.0, spelled=scoring.signed)
    return scoring.signed(test.difference * 100), around


def _tests(tests: Mapping[str, Comparison]) -> dict[str, Any]:
    return {name: scoring.to_json(one) for name, one in tests.items()}


def _utterances(report: JudgeReport) -> str:
    lines = []
    for place, one in enumerate(report.pairs):
        row = {"id": one.reference.id, "reference": report.texts[FLOOR][place][0]}
        row |= {name: texts[place][1] for name, texts in report.texts.items()}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def render(report: JudgeReport) -> str:
    """Return the page; the same report gives the same bytes."""
    options = report.made_with["scoring"]
    cers = {name: measures(score)[1] for name, score in report.scores.items()}
    difference, around = _difference(report.comparisons[FLOOR]["cer"])
    tiles = [
        (f"CER, {NAMES[name]}", f"{one.shown} %", f"95 %: {one.span} %")
        for name, one in cers.items()
    ]
    tiles.append(("Synthesised minus floor", f"{difference} points", f"95 %: {around}"))
    remark = (
        f"A recogniser trained on {report.judge.utterances:,} recordings of other voices "
        f"({', '.join(report.judge.speakers) or 'not named'}) writes down what it hears, without a "
        "language model. Its floor is what it gets wrong in real recordings of the same sentences."
    )
    if report.shared_voices:
        remark += f" It was trained on voices of these names: {', '.join(report.shared_voices)}."
    body = page.table(_HEADER, _rows(report), numbers=set(range(1, len(_HEADER))))
    sections = [
        page.tiles(*tiles),
        scores_page.odd(report.coverage),
        page.section("Errors", body + page.note(remark)),
        page.section("Most errors", _worst(report)),
        scores_page.made_by({"signature": report.scores[SYNTHESISED].signature}, report.made_with),
    ]
    subtitle = f"{options['hyp']}, {len(report.pairs):,} utterances."
    return page.page(f"Judged CER {cers[SYNTHESISED].shown} %", subtitle, sections)


def _worst(report: JudgeReport) -> str:
    counted = [
        (character_errors(*texts).errors, place)
        for place, texts in enumerate(report.texts[SYNTHESISED])
    ]
    worst = sorted((one for one in counted if one[0]), key=lambda one: (-one[0], one[1]))[:_WORST]
    shown = []
    for errors, place in worst:
        reference, said = report.texts[SYNTHESISED][place]
        remarks = [
            f"{errors} of {len(reference)} characters",
            f"real recording: {report.texts[FLOOR][place][1]}",
        ]
        steps = scores_page.alignment(align(list(reference), list(said)))
        shown.append(scores_page.utterance(report.pairs[place].reference.id, remarks, steps))
    return scores_page.legend() + "".join(shown) if shown else page.note("No errors.")
