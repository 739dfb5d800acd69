"""Score recognised text: ``python -m eval.wer --ref manifest.jsonl --hyp hyp.jsonl --out scores``.

Word and character error rates with 95 % bootstrap intervals, substitutions, deletions and
insertions, a score for each language or speaker, a paired test against other hypotheses. Writes
``wer.json`` (rates as shares of 1), ``wer.html`` and ``utterances.jsonl`` into ``--out``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from unitone import config as configs
from unitone import program
from unitone.errors import CorpusError
from unitone.eval import scoring, wer_report
from unitone.eval.metrics.error_rates import (
    WerScore,
    compare_wer,
    error_counts,
    normalized,
    score_of,
)
from unitone.eval.normalizers import NormalizerName, is_spaceless
from unitone.eval.pairs import (
    Pair,
    Reference,
    coverage,
    pair,
    read_hypotheses,
    read_references,
    refuse_tasks,
)
from unitone.eval.scoring import ScoringConfig
from unitone.eval.wer_report import WerReport


@dataclass(frozen=True, kw_only=True)
class WerConfig:
    scoring: ScoringConfig
    normalizer: NormalizerName = "basic"
    """How both texts are normalised before they are compared."""


def evaluate(config: WerConfig) -> WerReport:
    """Read, pair and score what ``config`` names.

    Raises:
        ConfigError: a file or a field that isn't there, hypotheses of another task.
        CorpusError: a file that can't be used, ids that don't fit.
    """
    options = config.scoring
    references = read_references(options.ref, split=options.split, limit=options.limit)
    for one in references:
        if not isinstance(one.fields.get("text"), str):
            raise CorpusError(f'{options.ref}: reference {one.id} has no "text"')
    pairs, texts = _system(references, options.hyp, config)
    together = scoring.clusters(pairs, options.together)
    counts = error_counts(texts)
    if not counts[:, :3].sum():
        raise CorpusError(f"{options.ref}: no words after normalization {config.normalizer!r}")

    def scored(rows: Int[np.ndarray, "N 9"], places: Sequence[int] | None = None) -> WerScore:
        chosen = range(len(rows)) if places is None else places
        return score_of(
            rows[list(chosen)],
            name=config.normalizer,
            resampling=options.resampling,
            clusters=None if together is None else [together[place] for place in chosen],
            together=options.together,
        )

    other, comparison = None, {}
    if options.against is not None:
        other_counts = error_counts(_system(references, options.against, config)[1])
        other = scored(other_counts)
        comparison = compare_wer(
            counts, other_counts, resampling=options.resampling, clusters=together
        )
    return WerReport(
        made_with=configs.to_dict(config),
        pairs=pairs,
        texts=texts,
        unit="characters" if is_spaceless("".join(left for left, _ in texts)) else "words",
        coverage=coverage(pairs),
        score=scored(counts),
        groups={
            field: {
                name: scored(counts, places)
                for name, places in scoring.groups(pairs, field).items()
            }
            for field in options.by
        },
        other=other,
        comparison=comparison,
    )


def _system(
    references: Sequence[Reference], path: Path, config: WerConfig
) -> tuple[list[Pair], list[tuple[str, str]]]:
    hypotheses = read_hypotheses(path)
    refuse_tasks(hypotheses, ("st", "mt"), cure="python -m eval.bleu")
    refuse_tasks(hypotheses, ("lid", "gid"), cure="python -m eval.classify")
    for one in hypotheses:
        if one.text is None:
            raise CorpusError(f'{path}: hypothesis {one.id} has no "text"')
    pairs = pair(
        {(one.id,): one for one in references},
        [((one.id,), one) for one in hypotheses],
        where=path,
        allow_missing=config.scoring.allow_missing,
    )
    said = [(one.hypothesis.text or "") if one.hypothesis else "" for one in pairs]
    meant = [str(one.reference.fields["text"]) for one in pairs]
    return pairs, normalized(meant, said, name=config.normalizer)


def score(config: WerConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    report = evaluate(config)
    wer_report.show(report)
    if config.scoring.out is not None:
        wer_report.write(report, config.scoring.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = configs.command_line(WerConfig, argv, __doc__)
    return program.run(lambda: score(config))


if __name__ == "__main__":
    raise SystemExit(main())
