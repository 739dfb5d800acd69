"""Judge speech: ``python -m eval.judge score --judge exp/judge --ref M --hyp hyp.jsonl``.

The judge hears the synthesised audio of the hypotheses ("audio", relative to their file; null where
there is none) and the real recordings of the same sentences. Character and word error rates of
both, the real ones being its floor, and the difference, each with a 95 % bootstrap interval. Writes
``judge.json`` (rates as shares of 1), ``judge.html`` and ``utterances.jsonl`` into ``--out``.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from unitone import audio, program
from unitone import config as configs
from unitone.audio import Clip
from unitone.config import command_line
from unitone.corpus.corpus import read_corpus
from unitone.corpus.waveforms import load_ahead
from unitone.errors import CorpusError
from unitone.eval import judge_report, scoring
from unitone.eval.judge.judge import Judge, load
from unitone.eval.judge_report import FLOOR, OTHER, SYNTHESISED, JudgeReport
from unitone.eval.metrics.error_rates import (
    WerScore,
    compare_wer,
    error_counts,
    normalized,
    score_of,
)
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
from unitone.logs import Progress

logger = logging.getLogger(__name__)

TOGETHER = 64
"""Waveforms in memory at a time."""
LONGEST = 60 * audio.SAMPLE_RATE
"""Samples; the floor needs whole recordings, and the judge has learnt sentences."""


@dataclass(frozen=True, kw_only=True)
class JudgeScoreConfig:
    judge: Path
    """Model directory, or run, of ``python -m eval.judge train``."""
    scoring: ScoringConfig
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def evaluate(config: JudgeScoreConfig) -> JudgeReport:
    """Let the judge hear everything that ``config`` names, and score what it understood.

    Raises:
        ConfigError: a file or a field that isn't there, hypotheses of another task, no judge.
        CorpusError: a file or recording that can't be used, ids that don't fit.
        CheckpointError: the judge is damaged.
    """
    options = config.scoring
    judge = load(config.judge, device=config.device)
    references = read_references(options.ref, split=options.split, limit=options.limit)
    for one in references:
        if not isinstance(one.fields.get("text"), str):
            raise CorpusError(f'{options.ref}: reference {one.id} has no "text"')
    pairs = _pairs(references, options.hyp, config)
    heard = _heard(judge, references, pairs, config)
    meant = [str(one.reference.fields["text"]) for one in pairs]
    texts = {
        name: normalized(meant, said, name=judge.origin.normalizer) for name, said in heard.items()
    }
    counts = {name: error_counts(found) for name, found in texts.items()}
    if not counts[FLOOR][:, :3].sum():
        raise CorpusError(f"{options.ref}: no words after normalization")
    together = scoring.clusters(pairs, options.together)

    def scores(places: Sequence[int]) -> dict[str, WerScore]:
        return {
            name: score_of(
                rows[list(places)],
                name=judge.origin.normalizer,
                resampling=options.resampling,
                clusters=None if together is None else [together[place] for place in places],
                together=options.together,
            )
            for name, rows in counts.items()
        }

    return JudgeReport(
        made_with=configs.to_dict(config),
        judge=judge.origin,
        shared_voices=_shared(judge, pairs),
        pairs=pairs,
        texts=texts,
        coverage=coverage(pairs),
        scores=scores(range(len(pairs))),
        groups={
            field: {name: scores(at) for name, at in scoring.groups(pairs, field).items()}
            for field in options.by
        },
        comparisons={
            name: compare_wer(
                counts[SYNTHESISED], rows, resampling=options.resampling, clusters=together
            )
            for name, rows in counts.items()
            if name != SYNTHESISED
        },
    )


def _heard(
    judge: Judge, references: Sequence[Reference], pairs: Sequence[Pair], config: JudgeScoreConfig
) -> dict[str, list[str]]:
    """Return what the judge understands of the recordings and of each set of hypotheses."""
    options = config.scoring
    heard = {FLOOR: hear_recordings(judge, options.ref, [one.reference.id for one in pairs])}
    heard[SYNTHESISED] = hear_hypotheses(judge, options.hyp, pairs)
    if options.against is not None:
        others = _pairs(references, options.against, config)
        heard[OTHER] = hear_hypotheses(judge, options.against, others)
    return heard


def hear_recordings(judge: Judge, manifest: Path, ids: Sequence[str]) -> list[str]:
    """Return what the judge understands of the recordings ``ids`` of a manifest.

    Raises:
        CorpusError: one isn't there, or can't be read.
    """
    known = {one.id: one for one in read_corpus(manifest).utterances}
    for name in ids:
        if name not in known:
            raise CorpusError(f"{manifest}: {name} has no recording that can be used for the floor")
    waves = []
    texts: list[str] = []
    with Progress("judge: recordings", total=float(len(ids)), unit="utt") as progress:
        for loaded in load_ahead([known[name] for name in ids], longest=LONGEST, workers=1):
            if loaded.waveform is None:
                reason = loaded.error or f"longer than {LONGEST // audio.SAMPLE_RATE} s"
                raise CorpusError(f"{loaded.utterance.id}: {reason}")
            waves.append(loaded.waveform)
            progress.advance(1.0)
            if len(waves) == TOGETHER:
                texts += judge.transcribe(waves)
                waves = []
    return texts + judge.transcribe(waves)


def hear_hypotheses(judge: Judge, path: Path, pairs: Sequence[Pair]) -> list[str]:
    """Return what the judge understands of the hypotheses' audio; where there is none, nothing.

    Raises:
        CorpusError: a hypothesis has no field "audio", or its file can't be read.
    """
    fields = {one.id: one.fields for one in read_references(path)}
    texts: list[str] = []
    silent = 0
    with Progress("judge: synthesised", total=float(len(pairs)), unit="utt") as progress:
        for first in range(0, len(pairs), TOGETHER):
            some = pairs[first : first + TOGETHER]
            waves = [_synthesised(path, fields, one.reference.id) for one in some]
            texts += judge.transcribe(waves)
            silent += sum(not wave.any() for wave in waves)
            progress.advance(float(len(some)))
    if silent:
        logger.warning("%s: %d of %d hypotheses are silent", path, silent, len(pairs))
    return texts


def _synthesised(
    path: Path, fields: Mapping[str, Mapping[str, object]], name: str
) -> Float[np.ndarray, "N"]:
    nothing = np.zeros(0, np.float32)
    if name not in fields:  # --allow-missing
        return nothing
    where = fields[name].get("audio", ...)
    if where is None:
        return nothing
    if not isinstance(where, str):
        raise CorpusError(
            f'{path}: hypothesis {name} has no "audio"; synthesise with a unit decoder '
            "(python -m lm.decode --task tts)"
        )
    blocks = list(audio.stream(Clip(path=path.parent / where)))  # silence is a result here
    found: np.ndarray = np.concatenate([nothing, *blocks])
    return found


def _pairs(references: Sequence[Reference], path: Path, config: JudgeScoreConfig) -> list[Pair]:
    hypotheses = read_hypotheses(path)
    refuse_tasks(hypotheses, ("asr",), cure="python -m eval.wer")
    refuse_tasks(hypotheses, ("st", "mt"), cure="python -m eval.bleu")
    refuse_tasks(hypotheses, ("lid", "gid"), cure="python -m eval.classify")
    return pair(
        {(one.id,): one for one in references},
        [((one.id,), one) for one in hypotheses],
        where=path,
        allow_missing=config.scoring.allow_missing,
    )


def _shared(judge: Judge, pairs: Sequence[Pair]) -> tuple[str, ...]:
    voices = {str(one.reference.fields.get("speaker")) for one in pairs}
    shared = tuple(sorted(voices & {*judge.origin.speakers}))
    if shared:
        logger.warning(
            "the judge was trained on voices with the names of those it judges (%s): if they are "
            "the same, its verdict is too kind",
            ", ".join(shared[:5]),
        )
    return shared


def score(config: JudgeScoreConfig) -> None:
    """Score what ``config`` names, show the report, and write it where that is asked for."""
    report = evaluate(config)
    judge_report.show(report)
    if config.scoring.out is not None:
        judge_report.write(report, config.scoring.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(JudgeScoreConfig, argv, __doc__)
    return program.run(lambda: score(config))


if __name__ == "__main__":
    raise SystemExit(main())
