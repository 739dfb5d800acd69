"""Score translations: ``python -m eval.bleu --ref manifest.jsonl --hyp hyp.jsonl --out scores``.

Corpus BLEU, chrF and, if asked for, TER as sacreBLEU gives them, with its signatures, 95 %
bootstrap intervals, a score for each pair of languages, a paired test against other hypotheses. The
reference of a hypothesis is the "translation" of the manifest's row with its id into its language
("to"): a text, or a list of several references. Writes ``bleu.json`` and ``bleu.html`` into
``--out``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Num

from unitone import config as configs
from unitone import program
from unitone.errors import CorpusError
from unitone.eval import examples, report, scoring
from unitone.eval.examples import Example
from unitone.eval.metrics.edits import align, count_edits
from unitone.eval.metrics.translation import (
    PLAIN,
    Tokenizer,
    TranslationScore,
    Variant,
    ngram_counts,
    number_of_references,
    score_of,
    tokenizer_of,
)
from unitone.eval.pairs import (
    Hypothesis,
    Key,
    Pair,
    Reference,
    coverage,
    matched,
    pair,
    read_hypotheses,
)
from unitone.eval.report import Cells, Report, Scored, grouped
from unitone.eval.scoring import ScoringConfig
from unitone.eval.statistics import comparisons
from unitone.report import page

LANGUAGES = "languages"
"""What ``--by`` calls the pair of source and target language."""
TARGET = "to"
_COMPARED = {"bleu": ("BLEU", "BLEU"), "ter": ("TER", "TER")}
_WORST = 40
"""Sentences shown beside their reference."""


@dataclass(frozen=True, kw_only=True)
class BleuConfig:
    scoring: ScoringConfig
    tokenizer: Tokenizer = "auto"
    """How BLEU finds words, by sacreBLEU's name; auto: zh for Chinese, char for Japanese, Thai and
    others without spaces, 13a for the rest. spm, flores200 and spBLEU-1K need a model."""
    variant: Variant = PLAIN


def evaluate(config: BleuConfig) -> Report:
    """Read, pair and score what ``config`` names.

    ``--by`` may also be ``to`` or ``languages``; with several pairs of languages the latter is
    added by itself, since BLEU over several is no usual number.

    Raises:
        ConfigError: a file or a field that isn't there, hypotheses of another task.
        CorpusError: a file that can't be used, ids that don't fit.
    """
    options = config.scoring
    references = scoring.references(options)
    pairs = _pairs(references, options.hyp, config)
    tokenizers: list[Tokenizer] = [_tokenizer(one, config) for one in pairs]
    counts = _counts(pairs, tokenizers, config.variant)
    clusters = scoring.clusters(pairs, options.together)

    score = _scorer(pairs, tokenizers, clusters, config)
    everything = range(len(pairs))
    whole = score(counts, everything)
    other, tests = None, {}
    if options.against is not None:
        others = _pairs(references, options.against, config, expected=[one.key for one in pairs])
        theirs = _counts(others, tokenizers, config.variant)
        other = _scored(score(theirs, everything))
        tests = comparisons(
            counts,
            theirs,
            config.variant.formulas,
            resampling=options.resampling,
            clusters=clusters,
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
        compared={**_COMPARED, "chrf": (_chrf2(whole), whole.chrf_name)},
        lower_is_better_in=("ter",),
        tiles=_tiles(whole),
        summary={"What BLEU is made of": _parts(whole, together=options.together)},
        details={"Least like their reference": _worst(pairs, counts, config.variant)},
    )


def _scorer(
    pairs: Sequence[Pair],
    tokenizers: Sequence[Tokenizer],
    clusters: Sequence[Key],
    config: BleuConfig,
) -> Callable[[Num[np.ndarray, "N K"], Sequence[int]], TranslationScore]:
    """Return what scores the pairs at some places, from the counts of all."""

    def score(rows: Num[np.ndarray, "N K"], places: Sequence[int]) -> TranslationScore:
        used: list[Tokenizer] = sorted({tokenizers[place] for place in places})
        return score_of(
            rows[list(places)],
            tokenizers=used,
            variant=config.variant,
            nrefs=number_of_references([_references(pairs[place]) for place in places]),
            resampling=config.scoring.resampling,
            clusters=[clusters[place] for place in places],
            together=config.scoring.together,
        )

    return score


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


def _counts(
    pairs: Sequence[Pair], tokenizers: Sequence[Tokenizer], variant: Variant
) -> Num[np.ndarray, "N K"]:
    counts: Num[np.ndarray, "N K"] | None = None
    for tokenizer in sorted(set(tokenizers)):
        places = [place for place, one in enumerate(tokenizers) if one == tokenizer]
        found = ngram_counts(
            [_references(pairs[place]) for place in places],
            [_hypothesis(pairs[place]) for place in places],
            tokenizer=tokenizer,
            variant=variant,
        )
        if counts is None:
            counts = np.zeros((len(pairs), found.shape[1]), found.dtype)
        counts[places] = found
    assert counts is not None
    return counts


def _hypothesis(one: Pair) -> str:
    return (one.hypothesis.text or "") if one.hypothesis else ""


def _references(one: Pair) -> tuple[str, ...]:
    return _translations(one.reference)[_target(one)]


def _translations(reference: Reference) -> dict[str, tuple[str, ...]]:
    """Return the translations of a row by language, as `unitone.corpus.corpus` reads them.

    Each may be a list: several references.
    """
    value = reference.fields.get("translation")
    if isinstance(value, str | list):
        value = {str(reference.fields.get("translation_language") or "und"): value}
    if value is None or not isinstance(value, Mapping):
        return {}
    lists = {to: [found] if isinstance(found, str) else found for to, found in value.items()}
    return {
        to: tuple(found)
        for to, found in lists.items()
        if isinstance(found, list) and found and all(isinstance(text, str) for text in found)
    }


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
    read = read_hypotheses(path, command="eval.bleu")
    by_id = {one.id: one for one in references}
    hypotheses = [
        replace(one, to=_checked_target(one, by_id, path))
        for one in matched(references, read, where=path)
    ]
    targets = dict.fromkeys(one.to or "" for one in hypotheses)
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
    known = list(_translations(by_id[one.id]) if one.id in by_id else filter(None, [one.to]))
    to = one.to or (known[0] if len(known) == 1 else None)  # other toolkits don't say
    if to is None:
        raise CorpusError(f'{path}: hypothesis {one.id} has no "to", the language it is in')
    if one.text is None:
        raise CorpusError(f'{path}: hypothesis {one.id} to {to} has no "text"')
    if to not in known:
        have = f"only into {', '.join(known)}" if known else "none at all"
        raise CorpusError(
            f"{path}: hypothesis {one.id} is in {to!r}, but the reference has no such "
            f"translation, {have}"
        )
    return to


def _chrf2(score: TranslationScore) -> str:
    return score.chrf_name.replace("chrF", "chrF2")


def _tiles(score: TranslationScore) -> list[tuple[str, str, str]]:
    measures = dict(score.measures)
    names = {score.chrf_name: _chrf2(score)}
    return [
        *(one.tile(names.get(name, name)) for name, one in measures.items()),
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
        f"over {together or 'sentence'}s. Scores with different signatures, or on different "
        "sentences, don't compare."
    )
    return page.table(header, [row], numbers=set(range(5))) + remark


def _worst(pairs: Sequence[Pair], counts: Num[np.ndarray, "N K"], variant: Variant) -> str:
    """Show the sentences with the lowest chrF; unlike BLEU it is defined for a sentence."""
    columns, chrf_of = variant.formulas["chrf"]
    values = chrf_of(counts[:, columns]).tolist()
    shown = []
    for place in sorted(range(len(values)), key=values.__getitem__)[:_WORST]:
        one, hypothesis = pairs[place], _hypothesis(pairs[place])
        if hypothesis in _references(one):
            break
        words = [text.split() for text in _references(one)]
        nearest = min(words, key=lambda text: count_edits(text, hypothesis.split()).errors)
        source = one.reference.fields.get("text")
        remarks = [f"to {_target(one)}", f"chrF2 {values[place]:.1f}"]
        remarks += ["no hypothesis"] if one.hypothesis is None else []
        remarks += [f"source: {source}"] if source else []
        steps = align(nearest, hypothesis.split())
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
