"""Score translations: ``python -m eval.bleu --ref manifest.jsonl --hyp hyp.jsonl --out scores``.

Corpus BLEU and chrF as sacreBLEU gives them, with its signatures, 95 % bootstrap intervals, a score
for each pair of languages, a paired test against other hypotheses. The reference of a hypothesis is
the "translation" of the manifest's row with its id into its language ("to"). Writes ``bleu.json``
and ``bleu.html`` into ``--out``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from unitone import config as configs
from unitone import program
from unitone.errors import CorpusError
from unitone.eval import bleu_report, scoring
from unitone.eval.bleu_report import BleuReport
from unitone.eval.metrics.translation import (
    CHRF_COLUMNS,
    Tokenizer,
    TranslationScore,
    chrf_of,
    compare_translations,
    ngram_counts,
    score_of,
    tokenizer_of,
)
from unitone.eval.pairs import (
    Hypothesis,
    Pair,
    Reference,
    coverage,
    pair,
    read_hypotheses,
    read_references,
    refuse_tasks,
)
from unitone.eval.scoring import ScoringConfig

LANGUAGES = "languages"
"""What ``--by`` calls the pair of source and target language."""
TARGET = "to"


@dataclass(frozen=True, kw_only=True)
class BleuConfig:
    scoring: ScoringConfig
    tokenizer: Tokenizer = "auto"
    """How BLEU finds words, by sacreBLEU's name; auto: zh for Chinese, char for Japanese, Thai and
    others without spaces, 13a for the rest."""


def evaluate(config: BleuConfig) -> BleuReport:
    """Read, pair and score what ``config`` names.

    ``--by`` may also be ``to`` or ``languages``; with several pairs of languages the latter is
    added by itself, since BLEU over several is no usual number.

    Raises:
        ConfigError: a file or a field that isn't there, hypotheses of another task.
        CorpusError: a file that can't be used, ids that don't fit.
    """
    options = config.scoring
    references = read_references(options.ref, split=options.split, limit=options.limit)
    pairs = _pairs(references, options.hyp, config)
    tokenizers: list[Tokenizer] = [_tokenizer(one, config) for one in pairs]
    counts = _counts(pairs, tokenizers)
    together = scoring.clusters(pairs, options.together)

    def scored(
        rows: Int[np.ndarray, "N 28"], places: Sequence[int] | None = None
    ) -> TranslationScore:
        chosen = list(range(len(rows)) if places is None else places)
        used: list[Tokenizer] = sorted({tokenizers[place] for place in chosen})
        return score_of(
            rows[chosen],
            tokenizers=used,
            resampling=options.resampling,
            clusters=None if together is None else [together[place] for place in chosen],
            together=options.together,
        )

    other, comparison = None, {}
    if options.against is not None:
        others = _pairs(references, options.against, config, expected=[one.key for one in pairs])
        other_counts = _counts(others, tokenizers)
        other = scored(other_counts)
        comparison = compare_translations(
            counts, other_counts, resampling=options.resampling, clusters=together
        )
    return BleuReport(
        made_with=configs.to_dict(config),
        pairs=pairs,
        texts=[_texts(one) for one in pairs],
        sentence_chrf=chrf_of(counts[:, CHRF_COLUMNS]).tolist(),
        coverage=coverage(pairs),
        score=scored(counts),
        groups={
            field: {name: scored(counts, places) for name, places in found.items()}
            for field, found in _groups(pairs, options.by).items()
        },
        other=other,
        comparison=comparison,
    )


def _groups(pairs: Sequence[Pair], by: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    special = {LANGUAGES: _languages, TARGET: _target}
    found = {field: scoring.groups(pairs, field, of=special.get(field)) for field in by}
    if LANGUAGES not in found and TARGET not in found:
        languages = scoring.groups(pairs, LANGUAGES, of=_languages)
        if len(languages) > 1:
            return {LANGUAGES: languages, **found}
    return found


def _target(one: Pair) -> str:
    return one.key[1]


def _languages(one: Pair) -> str:
    return f"{one.reference.group('language')} → {_target(one)}"


def _tokenizer(one: Pair, config: BleuConfig) -> Tokenizer:
    return tokenizer_of(_target(one)) if config.tokenizer == "auto" else config.tokenizer


def _counts(pairs: Sequence[Pair], tokenizers: Sequence[Tokenizer]) -> Int[np.ndarray, "N 28"]:
    counts: Int[np.ndarray, "N 28"] | None = None
    for tokenizer in sorted(set(tokenizers)):
        places = [place for place, one in enumerate(tokenizers) if one == tokenizer]
        texts = [_texts(pairs[place]) for place in places]
        found = ngram_counts(
            [left for left, _ in texts], [right for _, right in texts], tokenizer=tokenizer
        )
        if counts is None:
            counts = np.zeros((len(pairs), found.shape[1]), np.int64)
        counts[places] = found
    assert counts is not None
    return counts


def _texts(one: Pair) -> tuple[str, str]:
    said = one.hypothesis.text if one.hypothesis else None
    return _translations(one.reference)[_target(one)], said or ""


def _translations(reference: Reference) -> dict[str, str]:
    """Return the translations of a row by language, as `unitone.corpus.corpus` reads them."""
    value = reference.fields.get("translation")
    if isinstance(value, str):
        return {str(reference.fields.get("translation_language") or "und"): value}
    if value is None or not isinstance(value, Mapping):
        return {}
    return {to: text for to, text in value.items() if isinstance(text, str)}


def _pairs(
    references: Sequence[Reference],
    path: Path,
    config: BleuConfig,
    *,
    expected: Sequence[tuple[str, ...]] | None = None,
) -> list[Pair]:
    """Pair the hypotheses of a file with the references in the languages that the file has.

    ``expected``: the pairs that have to be there instead, where another file has set them.
    """
    hypotheses = read_hypotheses(path)
    refuse_tasks(hypotheses, ("asr",), cure="python -m eval.wer")
    refuse_tasks(hypotheses, ("lid", "gid"), cure="python -m eval.classify")
    by_id = {one.id: one for one in references}
    targets = dict.fromkeys(_checked_target(one, by_id, path) for one in hypotheses)
    keys = expected or [
        (one.id, to) for one in references for to in targets if to in _translations(one)
    ]
    return pair(
        {key: by_id[key[0]] for key in keys},
        [((one.id, one.to or ""), one) for one in hypotheses],
        where=path,
        allow_missing=config.scoring.allow_missing,
    )


def _checked_target(one: Hypothesis, by_id: Mapping[str, Reference], path: Path) -> str:
    if one.to is None:
        raise CorpusError(f'{path}: hypothesis {one.id} has no "to", the language it is in')
    if one.text is None:
        raise CorpusError(f'{path}: hypothesis {one.id} to {one.to} has no "text"')
    known = _translations(by_id[one.id]) if one.id in by_id else {one.to: ""}
    if one.to not in known:
        have = f"only into {', '.join(known)}" if known else "none at all"
        raise CorpusError(
            f"{path}: hypothesis {one.id} is in {one.to!r}, but the reference has no such "
            f"translation, {have}"
        )
    return one.to


def score(config: BleuConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    report = evaluate(config)
    bleu_report.show(report)
    if config.scoring.out is not None:
        bleu_report.write(report, config.scoring.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = configs.command_line(BleuConfig, argv, __doc__)
    return program.run(lambda: score(config))


if __name__ == "__main__":
    raise SystemExit(main())
