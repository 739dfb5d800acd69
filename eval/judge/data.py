"""Training data of the ASR judge: features of recordings in memory, and their texts.

Axes: M mel bands.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int

from unitone import seeding
from unitone.corpus.corpus import read_corpus
from unitone.corpus.waveforms import load_ahead
from unitone.errors import CorpusError
from unitone.eval.judge.augment import AugmentConfig, augmented
from unitone.eval.judge.model import (
    PER_FRAME,
    SUBSAMPLING,
    SpeechBatch,
    log_mel,
    outputs_needed,
    padded,
)
from unitone.eval.normalizers import NormalizerName, normalizer
from unitone.logs import Progress
from unitone.train import batches

logger = logging.getLogger(__name__)

LONGEST = 30 * 16_000
"""Samples; longer recordings aren't learnt."""


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Utterances with their texts, normalized; features before their normalization."""

    features: tuple[Float32[np.ndarray, "_ M"], ...]
    texts: tuple[str, ...]
    speakers: tuple[str, ...]
    """Names, sorted."""
    seconds: float
    sha256: str
    """Of the corpus: everything the texts come from."""


def read_recordings(
    manifest: Path,
    *,
    split: str | None,
    num_mels: int,
    name: NormalizerName,
    most: int | None = None,
) -> Recordings:
    """Read every recording of a manifest (of one split) that has a text, or the first ``most``.

    Raises:
        ConfigError: there is no such manifest or split.
        CorpusError: nothing in it can be used.
    """
    apply = normalizer(name)
    features, texts, speakers, samples = [], [], set(), 0
    corpus = read_corpus(manifest).only(split)
    utterances = [one for one in corpus.utterances if one.text and apply(one.text, one.language)]
    utterances = utterances[:most]
    with Progress("features", total=float(len(utterances)), unit="utt") as progress:
        for loaded in load_ahead(utterances, longest=LONGEST, workers=2):
            progress.advance(1.0)
            one, wave = loaded.utterance, loaded.waveform
            if wave is None:
                logger.warning("%s is not used: %s", one.id, loaded.error or "it is too long")
                continue
            features.append(log_mel(wave, num_mels))
            texts.append(apply(one.text or "", one.language))
            speakers.add(one.speaker or "")
            samples += len(wave)
    if not features:
        raise CorpusError(f"{manifest}: no recording with a text that can be used")
    return Recordings(
        features=tuple(features),
        texts=tuple(texts),
        speakers=tuple(sorted(speakers - {""})),
        seconds=samples / 16_000,
        sha256=corpus.sha256,
    )


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A batch of an epoch window."""

    window: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RecordingSource:
    """A `unitone.train.loading.BatchSource` of `SpeechBatch`; picklable."""

    recordings: Recordings
    targets: tuple[Int[np.ndarray, "_"], ...]
    max_frames: int
    """Of a batch, padding included."""
    seed: int
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def plan(self, window: int) -> Sequence[Spec]:
        """Return the utterances in batches of like length, shuffled."""
        lengths = np.array([len(one) for one in self.recordings.features])
        stream = seeding.stream(self.seed, "judge", "plan", window)
        grouped = batches.bucket(
            lengths, max_tokens=self.max_frames, generator=stream, multiple_of=8
        )
        return [Spec(window=window, rows=tuple(rows.tolist())) for rows in grouped]

    def load(self, spec: Spec) -> SpeechBatch:
        """Return a batch, augmented as the window and its first utterance say."""
        stream = seeding.stream(self.seed, "judge", "augment", spec.window, spec.rows[0])
        features, lengths = padded(
            [augmented(self.recordings.features[row], self.augment, stream) for row in spec.rows]
        )
        targets = [self.targets[row] for row in spec.rows]
        target_lengths = np.array([len(one) for one in targets])
        together = np.zeros((len(targets), int(target_lengths.max())), np.int64)
        for place, classes in enumerate(targets):
            together[place, : len(classes)] = classes
        return SpeechBatch(
            features=features,
            lengths=lengths,
            targets=torch.from_numpy(together),
            target_lengths=torch.from_numpy(target_lengths),
            padding=1 - float(lengths.sum()) / (features.shape[0] * features.shape[1]),
        )


def drop_too_short(
    recordings: Recordings, targets: Sequence[Int[np.ndarray, "_"]]
) -> tuple[Recordings, tuple[Int[np.ndarray, "_"], ...]]:
    """Leave out what is too short for its text, and say how many.

    Raises:
        CorpusError: everything is.
    """
    kept = [
        row
        for row, classes in enumerate(targets)
        if len(classes)
        and outputs_needed(classes) <= len(recordings.features[row]) // SUBSAMPLING * PER_FRAME
    ]
    if not kept:
        raise CorpusError("every recording is too short for its text; do they belong together?")
    if len(kept) < len(targets):
        logger.warning("%d recordings are too short for their texts", len(targets) - len(kept))
    chosen = Recordings(
        features=tuple(recordings.features[row] for row in kept),
        texts=tuple(recordings.texts[row] for row in kept),
        sha256=recordings.sha256,
        speakers=recordings.speakers,
        seconds=recordings.seconds,
    )
    return chosen, tuple(targets[row] for row in kept)
