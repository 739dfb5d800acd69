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
from unitone.eval import examples, report, scoring
from unitone.eval.examples import Example
from unitone.eval.metrics.edits import align
from unitone.eval.metrics.translation import (
    CHRF_COLUMNS,
    FORMULAS,
    Tokenizer,
    TranslationScore,
    chrf_of,
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
)
from unitone.eval.report import Cells, Report, Scored, grouped
from unitone.eval.scoring import ScoringConfig
from unitone.eval.statistics import comparisons
from unitone.report import page

LANGUAGES = "languages"
"""What ``--by`` calls the pair of source and target language."""
TARGET = "to"
_WORST = 40
"""Sentences shown beside their reference."""


@dataclass(frozen=True, kw_only=True)
class BleuConfig:
    scoring: ScoringConfig
    tokenizer: Tokenizer = "auto"
    """How BLEU finds words, by sacreBLEU's name; auto: zh for Chinese, char for Japanese, Thai and
    others without spaces, 13a for the rest."""


def evaluate(config: BleuConfig) -> Report:
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
    clusters = scoring.clusters(pairs, options.together)

    def score(rows: Int[np.ndarray, "N 28"], places: Sequence[int]) -> TranslationScore:
        used: list[Tokenizer] = sorted({tokenizers[place] for place in places})
        return score_of(
            rows[list(places)],
            tokenizers=used,
            resampling=options.resampling,
            clusters=[clusters[place] for place in places],
            together=options.together,
        )

    everything = range(len(pairs))
    whole = score(counts, everything)
    other, tests = None, {}
    if options.against is not None:
        others = _pairs(references, options.against, config, expected=[one.key for one in pairs])
        theirs = _counts(others, tokenizers)
        other = _scored(score(theirs, everything))
        tests = comparisons(
            counts, theirs, FORMULAS, resampling=options.resampling, clusters=clusters
        )
    return Report(
        name="bleu",
        options=configs.to_dict(config),
        signature={"metric": "bleu", **whole.signatures},
        title=f"BLEU {whole.measures['BLEU'].shown}",
        subtitle=f"{options.hyp} against {options.ref}, {whole.sentences:,} sentences.",
        caption=whole.signature,
        coverage=coverage(pairs),
        column="BLEU",
        score=_scored(whole),
        groups=grouped(
            pairs,
            _fields(pairs, options.by),
            lambda places: _scored(score(counts, places), signed=True),
            of=_SPECIAL,
        ),
        other=other,
        tests=tests,
        compared={"bleu": ("BLEU", "BLEU"), "chrf": ("chrF2", "chrF")},
        tiles=_tiles(whole),
        summary={"What BLEU is made of": _parts(whole, together=options.together)},
        details={"Least like their reference": _worst(pairs, counts)},
    )


def _scored(score: TranslationScore, *, signed: bool = False) -> Scored:
    """Return a score as a row; ``signed``: its JSON has its signature."""
    cells: Cells = {
        **score.measures,
        "brevity": scoring.number(score.brevity_penalty, digits=3),
        "sentences": score.sentences,
    }
    signature = {"signature": score.signature} if signed else {}
    return Scored(rows={"": cells}, json={**signature, **score.to_json()})


def _fields(pairs: Sequence[Pair], by: Sequence[str]) -> Sequence[str]:
    """Return what is grouped by: ``by``, and languages first where nobody asked but it matters."""
    several = len(scoring.groups(pairs, LANGUAGES, of=_languages)) > 1
    return by if {LANGUAGES, TARGET} & {*by} or not several else (LANGUAGES, *by)


def _target(one: Pair) -> str:
    return one.key[1]


def _languages(one: Pair) -> str:
    return f"{one.reference.group('language')} → {_target(one)}"


_SPECIAL = {LANGUAGES: _languages, TARGET: _target}


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
    hypothesis = one.hypothesis.text if one.hypothesis else None
    return _translations(one.reference)[_target(one)], hypothesis or ""


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
    hypotheses = read_hypotheses(path, command="eval.bleu")
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


def _tiles(score: TranslationScore) -> list[tuple[str, str, str]]:
    bleu, chrf = score.measures.values()
    return [
        bleu.tile("BLEU"),
        chrf.tile("chrF2"),
        (
            "Length",
            scoring.number(score.ratio, digits=3),
            f"{score.hypothesis_words:,} words for {score.reference_words:,}",
        ),
    ]


def _parts(score: TranslationScore, *, together: str | None) -> str:
    header = ("1-grams right", "2-grams", "3-grams", "4-grams", "Brevity penalty")
    row = [f"{value:.1f} %" for value in score.precisions]
    row.append(scoring.number(score.brevity_penalty, digits=3))
    remark = page.note(
        "BLEU is the geometric mean of the shares of n-grams that are in the reference, times the "
        "brevity penalty; chrF2 compares n-grams of characters. Intervals: percentile bootstrap "
        f"over {together or 'sentence'}s. One reference each; scores with different signatures, or "
        "on different sentences, don't compare."
    )
    return page.table(header, [row], numbers=set(range(5))) + remark


def _worst(pairs: Sequence[Pair], counts: Int[np.ndarray, "N 28"]) -> str:
    """Show the sentences with the lowest chrF; unlike BLEU it is defined for a sentence."""
    values = chrf_of(counts[:, CHRF_COLUMNS]).tolist()
    shown = []
    for place in sorted(range(len(values)), key=values.__getitem__)[:_WORST]:
        one, (reference, hypothesis) = pairs[place], _texts(pairs[place])
        if reference == hypothesis:
            break
        source = one.reference.fields.get("text")
        remarks = [f"to {_target(one)}", f"chrF2 {values[place]:.1f}"]
        remarks += ["no hypothesis"] if one.hypothesis is None else []
        remarks += [f"source: {source}"] if source else []
        steps = align(reference.split(), hypothesis.split())
        shown.append(Example(id=one.reference.id, remarks=remarks, steps=steps))
    return examples.aligned(shown, none="Every translation is its reference.")


def score(config: BleuConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    report.publish(evaluate(config), out=config.scoring.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = configs.command_line(BleuConfig, argv, __doc__)
    return program.run(lambda: score(config))


if __name__ == "__main__":
    raise SystemExit(main())
