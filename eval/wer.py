"""Score recognized text: ``python -m eval.wer --ref manifest.jsonl --hyp hyp.jsonl --out scores``.

Word and character error rates with 95 % bootstrap intervals, substitutions, deletions and
insertions, a score for each language or speaker, a paired test against other hypotheses. Writes
``wer.json`` (rates as shares of 1), ``wer.html`` and ``utterances.jsonl`` into ``--out``.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from unitone import config as configs
from unitone import program
from unitone.errors import CorpusError
from unitone.eval import examples, report, scoring
from unitone.eval.examples import Example
from unitone.eval.metrics.edits import Step, align
from unitone.eval.metrics.error_rates import (
    FORMULAS,
    Spaces,
    WerScore,
    counted_characters,
    error_counts,
    normalized,
    score_of,
)
from unitone.eval.normalizers import NormalizerName, is_spaceless
from unitone.eval.pairs import Pair, Reference, coverage, matched, pair_by_id, read_hypotheses
from unitone.eval.report import Cells, Report, Scored, grouped
from unitone.eval.scoring import ScoringConfig
from unitone.eval.statistics import comparisons
from unitone.report import page

Unit = Literal["words", "characters"]
_WORST = 50
"""Utterances shown with their alignment."""


@dataclass(frozen=True, kw_only=True)
class WerConfig:
    scoring: ScoringConfig
    normalizer: NormalizerName = "basic"
    """How both texts are normalized before they are compared; by the language of the reference."""
    spaces: Spaces = "auto"
    """Whether the CER counts spaces: auto, not those beside characters of scripts without spaces;
    count; ignore."""


def evaluate(config: WerConfig) -> Report:
    """Read, pair and score what ``config`` names.

    Raises:
        ConfigError: a file or a field that isn't there, hypotheses of another task.
        CorpusError: a file that can't be used, ids that don't fit.
    """
    options = config.scoring
    references = scoring.transcripts(options, several=True)
    pairs, texts = _system(references, options.hyp, config)
    clusters = scoring.clusters(pairs, options.together)
    counts = error_counts(texts, spaces=config.spaces)
    if not counts[:, :3].sum():
        raise CorpusError(f"{options.ref}: no words after normalization {config.normalizer!r}")
    unit: Unit = "characters" if is_spaceless("".join(left for left, _ in texts)) else "words"

    def score(rows: Int[np.ndarray, "N 9"], places: Sequence[int]) -> WerScore:
        return score_of(
            rows[list(places)],
            name=config.normalizer,
            spaces=config.spaces,
            resampling=options.resampling,
            clusters=[clusters[place] for place in places],
            together=options.together,
        )

    whole = score(counts, range(len(pairs)))
    other, tests = None, {}
    if options.against is not None:
        others = error_counts(_system(references, options.against, config)[1], spaces=config.spaces)
        other = _scored(score(others, range(len(pairs))), unit)
        tests = comparisons(
            counts, others, FORMULAS, resampling=options.resampling, clusters=clusters
        )
    name, column = ("Word", "WER %") if unit == "words" else ("Character", "CER %")
    steps = [_aligned(*one, unit, config.spaces) for one in texts]
    return Report(
        name="wer",
        options=configs.to_dict(config),
        signature={"metric": "wer", "signature": whole.signature},
        title=f"{name} error rate {whole.measures[column].shown} %",
        subtitle=f"{options.hyp} against {options.ref}, {whole.utterances:,} utterances, "
        f"{whole.words.reference:,} words.",
        caption=whole.signature,
        coverage=coverage(pairs),
        column=column,
        score=_scored(whole, unit),
        groups=grouped(pairs, options.by, lambda places: _scored(score(counts, places), unit)),
        other=other,
        tests=tests,
        compared={"wer": ("WER", "WER %"), "cer": ("CER", "CER %")},
        lower_is_better=True,
        tiles=_tiles(whole, unit),
        summary={"Errors": _errors(whole, unit, together=options.together)},
        details={
            "Most frequent errors": examples.confusion_lists(steps),
            "Most errors": _worst(pairs, steps, unit),
        },
        utterances=[_utterance(*one) for one in zip(pairs, texts, steps, strict=True)],
    )


def _system(
    references: Sequence[Reference], path: Path, config: WerConfig
) -> tuple[list[Pair], list[tuple[str, str]]]:
    """Return the pairs of a hypotheses file, and their texts, normalized."""
    hypotheses = matched(references, read_hypotheses(path, command="eval.wer"), where=path)
    for one in hypotheses:
        if one.text is None:
            raise CorpusError(f'{path}: hypothesis {one.id} has no "text"')
    pairs = pair_by_id(
        references, hypotheses, where=path, allow_missing=config.scoring.allow_missing
    )
    return pairs, [_nearest(one, config) for one in pairs]


def _nearest(one: Pair, config: WerConfig) -> tuple[str, str]:
    """Return the texts of a pair, normalized; of several references, that with fewest errors."""
    spoken = one.reference.fields["text"]
    several = spoken if isinstance(spoken, list) else [spoken]
    recognized = (one.hypothesis.text or "") if one.hypothesis else ""
    texts = normalized(
        several,
        [recognized] * len(several),
        name=config.normalizer,
        languages=[scoring.language(one)] * len(several),
    )
    if len(texts) == 1:
        return texts[0]
    counts = error_counts(texts, spaces=config.spaces)
    errors = np.stack([counts[:, 1:4].sum(1), counts[:, 5:8].sum(1)])
    return texts[int(np.lexsort(errors[::-1])[0])]


def _scored(score: WerScore, unit: Unit) -> Scored:
    edits = score.words if unit == "words" else score.characters
    cells: Cells = {
        **score.measures,
        "sub": edits.substitutions,
        "del": edits.deletions,
        "ins": edits.insertions,
        unit: edits.reference,
        "utterances": score.utterances,
    }
    return Scored(rows={"": cells}, json=score.to_json())


def _aligned(reference: str, hypothesis: str, unit: Unit, spaces: Spaces) -> list[Step]:
    if unit == "words":
        return align(reference.split(), hypothesis.split())
    left, right = (list(counted_characters(one, spaces)) for one in (reference, hypothesis))
    return align(left, right)


def _utterance(one: Pair, texts: tuple[str, str], steps: Sequence[Step]) -> dict[str, Any]:
    kinds = Counter(step.kind for step in steps)
    return {
        "id": one.reference.id,
        "reference": texts[0],
        "hypothesis": texts[1],
        "substitutions": kinds["sub"],
        "deletions": kinds["del"],
        "insertions": kinds["ins"],
        "missing": one.hypothesis is None,
    }


def _tiles(score: WerScore, unit: Unit) -> list[tuple[str, str, str]]:
    wer, cer = score.measures.values()
    rates = [wer.tile("Word error rate", " %"), cer.tile("Character error rate", " %")]
    wrong = (
        "Utterances with an error",
        f"{score.sentence_error_rate * 100:.2f} %",
        f"{score.wrong:,} of {score.utterances:,}",
    )
    return [*(rates if unit == "words" else rates[::-1]), wrong]


def _errors(score: WerScore, unit: Unit, *, together: str | None) -> str:
    rows = []
    for name, edits in (("Words", score.words), ("Characters", score.characters)):
        kinds = (edits.hits, edits.substitutions, edits.deletions, edits.insertions)
        rows.append((name, f"{edits.reference:,}", *(f"{kind:,}" for kind in kinds)))
        whole = edits.reference
        rows.append(("", "", *(f"{100 * kind / whole:,.2f} %" if whole else "–" for kind in kinds)))
    header = ("", "In the references", "Right", "Substituted", "Left out", "Added")
    remark = (
        "Rates are errors over everything in the references. Intervals: percentile bootstrap over "
        f"{together or 'utterance'}s."
    )
    if not score.characters.errors:
        remark += (
            " Without a single error the bootstrap can't see how large the true rate may be: with "
            f"95 % confidence less than {3 / score.utterances:.2%} of utterances are wrong."
        )
    if unit == "characters":
        remark += " These texts have no spaces between words: read the character error rate."
    return page.table(header, rows, numbers={1, 2, 3, 4, 5}) + page.note(remark)


def _worst(pairs: Sequence[Pair], alignments: Sequence[Sequence[Step]], unit: Unit) -> str:
    errors = [sum(step.kind != "hit" for step in steps) for steps in alignments]
    shown = []
    for place in examples.worst(errors, most=_WORST):
        one, steps = pairs[place], alignments[place]
        length = sum(step.reference is not None for step in steps)
        remarks = [f"{errors[place]} errors in {length} {unit}"]
        remarks += [
            f"{field} {one.reference.group(field)}"
            for field in ("language", "speaker")
            if one.reference.fields.get(field)
        ]
        if one.hypothesis is None:
            remarks.append("no hypothesis")
        elif one.hypothesis.truncated:
            remarks.append("cut off at the cap")
        shown.append(Example(id=one.reference.id, remarks=remarks, steps=steps))
    return examples.aligned(shown, none="No errors.")


def score(config: WerConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    report.publish(evaluate(config), out=config.scoring.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = configs.command_line(WerConfig, argv, __doc__)
    return program.run(lambda: score(config))


if __name__ == "__main__":
    raise SystemExit(main())
