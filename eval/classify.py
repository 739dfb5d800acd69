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
from unitone.errors import CorpusError
from unitone.eval import classify_report, scoring
from unitone.eval.classify_report import ClassifyReport
from unitone.eval.metrics.accuracy import compare_accuracy, score_accuracy
from unitone.eval.pairs import (
    Pair,
    Reference,
    coverage,
    pair,
    read_hypotheses,
    read_references,
    refuse_tasks,
)
from unitone.eval.scoring import ReadConfig

_OF_FIELD = {"language": "lid", "gender": "gid"}
"""The task whose labels are a field's."""


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    field: str
    """The field of the manifest that the labels are of: language, gender, speaker, ..."""
    scoring: ReadConfig


def evaluate(config: ClassifyConfig) -> ClassifyReport:
    """Read, pair and score what ``config`` names.

    Raises:
        ConfigError: a file or a field that isn't there, hypotheses of another task.
        CorpusError: a file that can't be used, ids that don't fit.
    """
    options = config.scoring
    references = read_references(options.ref, split=options.split, limit=options.limit)
    pairs = _pairs(references, options.hyp, config)
    scoring.groups(pairs, config.field)  # refuses a field that isn't there
    for one in references:
        if one.fields.get(config.field) is None:
            raise CorpusError(f"{options.ref}: reference {one.id} has no {config.field!r}")
    meant, said = [one.reference.group(config.field) for one in pairs], _labels(pairs)
    other = comparison = None
    if options.against is not None:
        others = _labels(_pairs(references, options.against, config))
        other = score_accuracy(meant, others)
        comparison = compare_accuracy(meant, said, others)
    return ClassifyReport(
        made_with=configs.to_dict(config),
        field=config.field,
        pairs=pairs,
        coverage=coverage(pairs),
        score=score_accuracy(meant, said),
        groups={
            field: {
                name: score_accuracy([meant[one] for one in places], [said[one] for one in places])
                for name, places in scoring.groups(pairs, field).items()
            }
            for field in options.by
        },
        other=other,
        comparison=comparison,
    )


def _labels(pairs: Sequence[Pair]) -> list[str | None]:
    return [one.hypothesis.label if one.hypothesis else None for one in pairs]


def _pairs(references: Sequence[Reference], path: Path, config: ClassifyConfig) -> list[Pair]:
    hypotheses = read_hypotheses(path)
    refuse_tasks(hypotheses, ("asr",), cure="python -m eval.wer")
    refuse_tasks(hypotheses, ("st", "mt"), cure="python -m eval.bleu")
    for field, task in _OF_FIELD.items():
        if config.field in _OF_FIELD and config.field != field:
            refuse_tasks(hypotheses, (task,), cure=f"--field {field}")
    if not any(one.label for one in hypotheses):
        raise CorpusError(f'{path}: no hypothesis has a "label"')
    return pair(
        {(one.id,): one for one in references},
        [((one.id,), one) for one in hypotheses],
        where=path,
        allow_missing=config.scoring.allow_missing,
    )


def score(config: ClassifyConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    report = evaluate(config)
    classify_report.show(report)
    if config.scoring.out is not None:
        classify_report.write(report, config.scoring.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = configs.command_line(ClassifyConfig, argv, __doc__)
    return program.run(lambda: score(config))


if __name__ == "__main__":
    raise SystemExit(main())
