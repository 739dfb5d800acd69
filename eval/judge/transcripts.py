"""What the ASR judge recognizes in recordings of a manifest and in the audio of hypotheses."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from unitone.corpus import audio
from unitone.corpus.audio import Clip
from unitone.corpus.corpus import read_corpus
from unitone.corpus.waveforms import load_ahead
from unitone.errors import CorpusError
from unitone.eval.judge.judge import Judge
from unitone.eval.pairs import Reference, matched, read_references
from unitone.logs import Progress

logger = logging.getLogger(__name__)

TOGETHER = 64
"""Waveforms in memory at a time."""
LONGEST = 60 * audio.SAMPLE_RATE
"""Samples; the ground truth needs whole recordings, and the judge has learnt sentences."""


def of_recordings(judge: Judge, manifest: Path, ids: Sequence[str]) -> list[str]:
    """Return the transcripts of the recordings ``ids`` of a manifest.

    Raises:
        CorpusError: one isn't there, or can't be read.
    """
    known = {one.id: one for one in read_corpus(manifest).utterances}
    for name in ids:
        if name not in known:
            raise CorpusError(f"{manifest}: {name} has no recording for the ground-truth CER")
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


def of_hypotheses(judge: Judge, path: Path, references: Sequence[Reference]) -> list[str]:
    """Return the transcripts of the audio of the references' hypotheses; empty where there is none.

    Raises:
        CorpusError: a hypothesis has no field "audio", or its file can't be read.
    """
    lines = matched(references, read_references(path), where=path)
    fields, ids = {one.id: one.fields for one in lines}, [one.id for one in references]
    texts: list[str] = []
    silent = 0
    with Progress("judge: synthesized", total=float(len(ids)), unit="utt") as progress:
        for first in range(0, len(ids), TOGETHER):
            waves = [_waveform(path, fields, name) for name in ids[first : first + TOGETHER]]
            texts += judge.transcribe(waves)
            silent += sum(not wave.any() for wave in waves)
            progress.advance(float(len(waves)))
    if silent:
        logger.warning("%s: %d of %d hypotheses are silent", path, silent, len(ids))
    return texts


def _waveform(
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
            f'{path}: hypothesis {name} has no "audio"; synthesize with a unit decoder '
            "(python -m lm.decode --task tts)"
        )
    blocks = list(audio.stream(Clip(path=path.parent / where)))  # silence is a result here
    wave: np.ndarray = np.concatenate([nothing, *blocks])
    return wave
