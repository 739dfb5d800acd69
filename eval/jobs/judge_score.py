"""The work of ``eval.judge score``: transcripts of both, and their report."""

import logging
from collections.abc import Mapping, Sequence

from unitone import config as configs
from unitone.errors import CorpusError
from unitone.eval import examples, report, scoring
from unitone.eval.examples import Example
from unitone.eval.judge import judge as judges
from unitone.eval.judge import transcripts
from unitone.eval.judge.judge import Judge
from unitone.eval.judge_score import JudgeScoreConfig
from unitone.eval.metrics.edits import align
from unitone.eval.metrics.error_rates import (
    FORMULAS,
    WerScore,
    character_errors,
    error_counts,
    normalized,
    score_of,
)
from unitone.eval.pairs import Pair, Reference, coverage, pair_by_id, read_hypotheses
from unitone.eval.report import Cells, Report, Scored, grouped
from unitone.eval.statistics import Comparison, comparisons
from unitone.report import page

logger = logging.getLogger(__name__)
GROUND_TRUTH, SYNTHESIZED, OTHER = "floor", "synthesised", "other"
"""Names in the JSON."""
_NAMES = {
    GROUND_TRUTH: "real recordings (ground truth)",
    SYNTHESIZED: "synthesized",
    OTHER: "the other",
}
_SHORT = {GROUND_TRUTH: "ground truth", SYNTHESIZED: "synthesized", OTHER: "other"}
_WORST = 30
"""Utterances shown with their alignment."""


def evaluate(config: JudgeScoreConfig) -> Report:
    """Transcribe everything that ``config`` names, and score the transcripts.

    Raises:
        ConfigError: a file or a field that isn't there, hypotheses of another task, no judge.
        CorpusError: a file or recording that can't be used, ids that don't fit.
        CheckpointError: the judge is damaged.
    """
    options = config.scoring
    judge = judges.load(config.judge, device=config.device)
    pairs, texts = _systems(judge, scoring.transcripts(options), config)
    counts = {name: error_counts(one) for name, one in texts.items()}
    if not counts[GROUND_TRUTH][:, :3].sum():
        raise CorpusError(f"{options.ref}: no words after normalization")
    clusters = scoring.clusters(pairs, options.together)

    def scores(places: Sequence[int]) -> dict[str, WerScore]:
        return {
            name: score_of(
                rows[list(places)],
                name=judge.origin.normalizer,
                resampling=options.resampling,
                clusters=[clusters[place] for place in places],
                together=options.together,
            )
            for name, rows in counts.items()
        }

    whole = scores(range(len(pairs)))
    tests = {
        name: comparisons(
            counts[SYNTHESIZED], rows, FORMULAS, resampling=options.resampling, clusters=clusters
        )
        for name, rows in counts.items()
        if name != SYNTHESIZED
    }
    known = _known_speakers(judge, pairs)
    score = _with_differences(whole, tests)
    return Report(
        name="judge",
        options=configs.to_dict(config),
        signature={"metric": "judge", "signature": whole[SYNTHESIZED].signature},
        title=f"Intelligibility: CER {whole[SYNTHESIZED].measures['CER %'].shown} %",
        subtitle=f"{options.hyp}, {len(pairs):,} utterances.",
        caption=whole[SYNTHESIZED].signature,
        coverage=coverage(pairs),
        column="CER %",
        row=_NAMES[SYNTHESIZED],
        score=score,
        groups=grouped(pairs, options.by, lambda places: _scored(scores(places), _SHORT)),
        tests=None,
        tiles=_tiles(whole, tests[GROUND_TRUTH]["cer"]),
        summary={"Errors": report.table("", score.rows) + page.note(_remark(judge, known))},
        details={"Most errors": _worst(pairs, texts)},
        more={"shared_voices": list(known), "judge": configs.to_dict(judge.origin)},
        utterances=_utterances(pairs, texts),
    )


def _systems(
    judge: Judge, references: Sequence[Reference], config: JudgeScoreConfig
) -> tuple[list[Pair], dict[str, list[tuple[str, str]]]]:
    """Return the pairs, and for the recordings and all hypotheses (text, transcript) of each."""
    options = config.scoring
    paths = {SYNTHESIZED: options.hyp, OTHER: options.against}
    pairs = {
        name: pair_by_id(
            references,
            read_hypotheses(path, command="eval.judge"),
            where=path,
            allow_missing=options.allow_missing,
        )
        for name, path in paths.items()
        if path is not None
    }
    ids = [one.id for one in references]
    recognized = {GROUND_TRUTH: transcripts.of_recordings(judge, options.ref, ids)}
    for name in pairs:
        path = paths[name]
        assert path is not None
        recognized[name] = transcripts.of_hypotheses(judge, path, references)
    spoken = [str(one.fields["text"]) for one in references]
    languages = [scoring.language(one) for one in pairs[SYNTHESIZED]]
    texts = {
        name: normalized(spoken, found, name=judge.origin.normalizer, languages=languages)
        for name, found in recognized.items()
    }
    return pairs[SYNTHESIZED], texts


def _cells(score: WerScore) -> Cells:
    wer, cer = score.measures.items()
    return dict((cer, wer, ("utterances", score.utterances)))


def _scored(scores: Mapping[str, WerScore], names: Mapping[str, str]) -> Scored:
    return Scored(
        rows={names[name]: _cells(score) for name, score in scores.items()},
        json={name: score.to_json() for name, score in scores.items()},
    )


def _with_differences(
    scores: Mapping[str, WerScore], tests: Mapping[str, Mapping[str, Comparison]]
) -> Scored:
    """Return the scores of all utterances, and how far synthesized speech is from the others."""
    scored = _scored(scores, _NAMES)
    measures = scores[SYNTHESIZED].measures
    rows: dict[str, Cells] = {
        f"synthesized − {_SHORT[name]}": {
            "CER %": measures["CER %"].difference(found["cer"]),
            "WER %": measures["WER %"].difference(found["wer"]),
            "utterances": "",
        }
        for name, found in tests.items()
    }
    differences = {
        key: {rate: scoring.to_json(one) for rate, one in tests.get(name, {}).items()}
        for key, name in (("difference", GROUND_TRUTH), ("comparison", OTHER))
    }
    return Scored(rows={**scored.rows, **rows}, json={**scored.json, **differences})


def _tiles(scores: Mapping[str, WerScore], test: Comparison) -> list[tuple[str, str, str]]:
    rates = {name: score.measures["CER %"] for name, score in scores.items()}
    tiles = [one.tile(f"CER, {_NAMES[name]}", " %") for name, one in rates.items()]
    difference = rates[SYNTHESIZED].difference(test)
    last = (
        "Synthesized minus ground truth",
        f"{difference.shown} points",
        f"95 %: {difference.span}",
    )
    return [*tiles, last]


def _remark(judge: Judge, known: Sequence[str]) -> str:
    text = (
        f"The ASR judge is trained on {judge.origin.utterances:,} recordings of other speakers "
        f"({', '.join(judge.origin.speakers) or 'not named'}) and has no language model. The "
        "ground-truth CER is what it gets wrong in real recordings of the same sentences."
    )
    return (
        f"{text} It was trained on speakers of these names: {', '.join(known)}." if known else text
    )


def _utterances(
    pairs: Sequence[Pair], texts: Mapping[str, Sequence[tuple[str, str]]]
) -> list[dict[str, str]]:
    return [
        {"id": one.reference.id, "reference": texts[GROUND_TRUTH][place][0]}
        | {name: system[place][1] for name, system in texts.items()}
        for place, one in enumerate(pairs)
    ]


def _worst(pairs: Sequence[Pair], texts: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    errors = [character_errors(*one).errors for one in texts[SYNTHESIZED]]
    shown = []
    for place in examples.worst(errors, most=_WORST):
        reference, recognized = texts[SYNTHESIZED][place]
        remarks = [
            f"{errors[place]} of {len(reference)} characters",
            f"real recording: {texts[GROUND_TRUTH][place][1]}",
        ]
        steps = align(list(reference), list(recognized))
        shown.append(Example(id=pairs[place].reference.id, remarks=remarks, steps=steps))
    return examples.aligned(shown, none="No errors.")


def _known_speakers(judge: Judge, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return the names of speakers that the judge was trained on and judges, and warn of them."""
    speakers = {str(one.reference.fields.get("speaker")) for one in pairs}
    shared = tuple(sorted(speakers & {*judge.origin.speakers}))
    if shared:
        logger.warning(
            "the ASR judge was trained on speakers with the names of those it judges (%s): if they "
            "are the same, the error rates are too low",
            ", ".join(shared[:5]),
        )
    return shared


def score(config: JudgeScoreConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    report.publish(evaluate(config), out=config.scoring.out)
