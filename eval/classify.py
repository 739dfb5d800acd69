"""Score labels: ``python -m eval.classify --field language --ref manifest.jsonl --hyp hyp.jsonl``.

Accuracy with Wilson's 95 % interval, the confusion matrix, precision and recall of each class, and
McNemar's exact test against other hypotheses. The reference of a hypothesis' "label" is ``--field``
of the manifest's row with its id. Writes ``classify.json`` and ``classify.html`` into ``--out``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unitone import config as configs
from unitone import program
from unitone.errors import ConfigError, CorpusError
from unitone.eval import examples, report, scoring
from unitone.eval.metrics.accuracy import (
    NO_LABEL,
    AccuracyScore,
    compare_accuracy,
    is_right,
    score_accuracy,
)
from unitone.eval.pairs import (
    Pair,
    Reference,
    coverage,
    pair_by_id,
    read_hypotheses,
)
from unitone.eval.report import Cells, Report, Scored, grouped
from unitone.eval.scoring import Measure, ReadConfig
from unitone.report import page

_FIELD_OF = {"lid": "language", "gid": "gender"}
"""Task → the field that its labels are of."""
_COLUMN = "accuracy %"
_WRONG = 100
"""Wrong utterances that are listed."""
_MCNEMAR = (
    "p is McNemar's exact test, two-sided, on the utterances that only one of the two has right; "
    "the interval of the difference is Agresti and Min's for paired shares."
)


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    field: str
    """The field of the manifest that the labels are of: language, gender, speaker, ..."""
    scoring: ReadConfig


def evaluate(config: ClassifyConfig) -> Report:
    """Read, pair and score what ``config`` names.

    Raises:
        ConfigError: a file or a field that isn't there, hypotheses of another task.
        CorpusError: a file that can't be used, ids that don't fit.
    """
    options = config.scoring
    references = scoring.references(options)
    pairs = _pairs(references, options.hyp, config)
    scoring.groups(pairs, config.field)  # refuses a field that isn't there
    for one in references:
        if one.fields.get(config.field) is None:
            raise CorpusError(f"{options.ref}: reference {one.id} has no {config.field!r}")
    classes, answers = [one.reference.group(config.field) for one in pairs], _labels(pairs)

    def score(places: Sequence[int]) -> AccuracyScore:
        return score_accuracy([classes[one] for one in places], [answers[one] for one in places])

    whole = score(range(len(pairs)))
    other, tests = None, {}
    if options.against is not None:
        others = _labels(_pairs(references, options.against, config))
        other = _scored(score_accuracy(classes, others))
        tests["accuracy"] = compare_accuracy(classes, answers, others)
    return Report(
        name="classify",
        options=configs.to_dict(config),
        signature={
            "metric": "accuracy",
            "field": config.field,
            "signature": scoring.signature(field=config.field, ci="wilson"),
        },
        title=f"Accuracy of {config.field} {whole.measure.shown} %",
        subtitle=f"{options.hyp} against {options.ref}, {whole.utterances:,} utterances, "
        f"{len(set(classes))} classes.",
        caption=config.field,
        coverage=coverage(pairs),
        column=_COLUMN,
        score=_scored(whole),
        groups=grouped(pairs, options.by, lambda places: _scored(score(places))),
        other=other,
        tests=tests,
        compared={"accuracy": ("accuracy", _COLUMN)},
        how_tested=_MCNEMAR,
        tables={config.field: _classes(whole)},
        tiles=_tiles(whole),
        summary={"Confusions": _confusions(whole, config.field), "Classes": _classes_table(whole)},
        details={"Wrong labels": _wrong(pairs, config.field)},
    )


def _scored(score: AccuracyScore) -> Scored:
    cells: Cells = {_COLUMN: score.measure, "right": score.right, "utterances": score.utterances}
    return Scored(rows={"": cells}, json=score.to_json())


def _tiles(score: AccuracyScore) -> list[tuple[str, str, str]]:
    balanced = scoring.number(100 * score.balanced_accuracy)
    return [
        score.measure.tile("Accuracy", " %"),
        ("Balanced accuracy", f"{balanced} %", "mean recall of the classes"),
        ("Wrong", f"{score.utterances - score.right:,}", f"of {score.utterances:,}"),
    ]


def _confusions(score: AccuracyScore, field: str) -> str:
    remark = f" {NO_LABEL}: no answer." if NO_LABEL in score.labels else ""
    return examples.confusion_matrix(score.confusion, score.labels, field=field, remark=remark)


def _classes(score: AccuracyScore) -> dict[str, Cells]:
    return {
        one.label: {
            "precision %": scoring.number(100 * one.precision),
            "recall %": scoring.number(100 * one.recall),
            "F1 %": scoring.number(100 * one.f1),
            "utterances": one.reference,
        }
        for one in score.classes
    }


def _classes_table(score: AccuracyScore) -> str:
    rows: dict[str, Cells] = {}
    for one, cells in zip(score.classes, _classes(score).values(), strict=True):
        recall = Measure(value=one.recall, interval=one.recall_interval, scale=100.0)
        rows[one.label] = {**cells, "recall %": recall, "taken for it": one.hypothesis}
    remark = page.note("Intervals: Wilson's score interval; utterances are taken as independent.")
    return report.table("class", rows) + remark


def _wrong(pairs: Sequence[Pair], field: str) -> str:
    rows = []
    for one in pairs:
        label = one.reference.group(field)
        answer = one.hypothesis.label if one.hypothesis else None
        if not is_right(label, answer):
            text = one.reference.fields.get("text")
            rows.append((one.reference.id, label, answer or NO_LABEL, str(text or "")))
    if not rows:
        return page.note("None.")
    left = "" if len(rows) <= _WRONG else page.note(f"The first {_WRONG} of {len(rows):,}.")
    header = ("Utterance", "Is", "Taken for", "Text")
    return page.table(header, rows[:_WRONG], numbers=set()) + left


def _labels(pairs: Sequence[Pair]) -> list[str | None]:
    return [one.hypothesis.label if one.hypothesis else None for one in pairs]


def _pairs(references: Sequence[Reference], path: Path, config: ClassifyConfig) -> list[Pair]:
    hypotheses = read_hypotheses(path, command="eval.classify")
    for one in hypotheses:
        field = _FIELD_OF.get(one.task or "", config.field)
        if field != config.field and config.field in _FIELD_OF.values():
            raise ConfigError(
                f"the hypotheses are of task {one.task!r} ({one.id}); use --field {field}"
            )
    if not any(one.label for one in hypotheses):
        raise CorpusError(f'{path}: no hypothesis has a "label"')
    return pair_by_id(
        references, hypotheses, where=path, allow_missing=config.scoring.allow_missing
    )


def score(config: ClassifyConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    report.publish(evaluate(config), out=config.scoring.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = configs.command_line(ClassifyConfig, argv, __doc__)
    return program.run(lambda: score(config))


if __name__ == "__main__":
    raise SystemExit(main())
