"""Training data of the judge: features in memory, changed at random every time they are used.

A voice differs from another by the length of its vocal tract, its tempo, its timbre, its noise. So
every time an utterance is used, its frequency axis is stretched (Jaitly and Hinton 2013), its time
axis too, here more and there less, noise fills its valleys to a random height, and bands and
stretches of time are blanked out (SpecAugment, Park et al. 2019, arXiv 1904.08779).

Axes: T frames of 10 ms, M mel bands, S characters, N utterances.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from unitone import seeding
from unitone.corpus.corpus import read_corpus
from unitone.corpus.waveforms import load_ahead
from unitone.errors import CorpusError
from unitone.eval.judge.model import (
    PER_FRAME,
    RANGE,
    SUBSAMPLING,
    SpeechBatch,
    log_mel,
    normalized,
    outputs_needed,
    padded,
)
from unitone.eval.normalizers import NormalizerName, normalizer
from unitone.logs import Progress
from unitone.train import batches

logger = logging.getLogger(__name__)

KNOT = 10
"""Frames between two draws of the tempo."""
LONGEST = 30 * 16_000
"""Samples; longer recordings aren't learnt."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    formants: float = 0.1
    """The frequency axis is stretched by up to this share, either way."""
    tempo: float = 0.1
    """The same of the time axis."""
    rhythm: float = 0.2
    """Deviation of the logarithm of the tempo inside an utterance, drawn anew every 100 ms: what is
    judged may have been timed by a model."""
    noise: float = 3.0
    """Nepers of power between the loudest and the highest noise; the lowest isn't heard."""
    bands: int = 4
    """Widest of the two stretches of bands that are blanked out."""
    frames: int = 8
    """Longest of the two stretches of time that are blanked out."""


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Utterances with their texts, normalised; features before their normalisation."""

    features: tuple[Float32[np.ndarray, "_ M"], ...]
    texts: tuple[str, ...]
    speakers: tuple[str, ...]
    """Names of the voices, sorted."""
    seconds: float


def read_recordings(
    manifest: Path, *, split: str | None, num_mels: int, name: NormalizerName
) -> Recordings:
    """Read every recording of a manifest (of one split) that has a text.

    Raises:
        ConfigError: there is no such manifest or split.
        CorpusError: nothing in it can be used.
    """
    apply = normalizer(name)
    features, texts, speakers, samples = [], [], set(), 0
    found = read_corpus(manifest).only(split)
    utterances = [one for one in found.utterances if one.text and apply(one.text)]
    with Progress("features", total=float(len(utterances)), unit="utt") as progress:
        for loaded in load_ahead(utterances, longest=LONGEST, workers=2):
            progress.advance(1.0)
            one, wave = loaded.utterance, loaded.waveform
            if wave is None:
                logger.warning("%s is not used: %s", one.id, loaded.error or "it is too long")
                continue
            features.append(log_mel(wave, num_mels))
            texts.append(apply(one.text or ""))
            speakers.add(one.speaker or "")
            samples += len(wave)
    if not features:
        raise CorpusError(f"{manifest}: no recording with a text that can be used")
    return Recordings(
        features=tuple(features),
        texts=tuple(texts),
        speakers=tuple(sorted(speakers - {""})),
        seconds=samples / 16_000,
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
        rows = []
        for row in spec.rows:
            rows.append(augmented(self.recordings.features[row], self.augment, stream))
        features, lengths = padded(rows)
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


def without_hasty(
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
        speakers=recordings.speakers,
        seconds=recordings.seconds,
    )
    return chosen, tuple(targets[row] for row in kept)


def augmented(
    features: Float32[np.ndarray, "T M"], config: AugmentConfig, stream: np.random.Generator
) -> Float32[np.ndarray, "_ M"]:
    """Return the features of the same words from another voice, normalised, with holes."""
    tempo = 1 + stream.uniform(-config.tempo, config.tempo)
    formants = 1 + stream.uniform(-config.formants, config.formants)
    count, bands = features.shape
    times = _times(count, max(round(count * tempo), 1), rhythm=config.rhythm, stream=stream)
    places = np.arange(bands) * formants
    warped = _between(_between(features, times).T, places.clip(0, bands - 1)).T
    loudest = float(warped.max())
    noise = loudest - stream.uniform(config.noise, RANGE)
    slope = stream.normal(0, 1) * np.linspace(-1, 1, bands)
    filled = np.logaddexp(warped, noise + slope + stream.normal(0, 0.5, warped.shape))
    found = normalized(filled.astype(np.float32))
    for _ in range(2):
        width, first = stream.integers(config.bands + 1), stream.integers(bands)
        found[:, first : first + width] = 0
        width, first = stream.integers(config.frames + 1), stream.integers(len(found))
        found[first : first + width] = 0
    return found


def _times(
    count: int, wanted: int, *, rhythm: float, stream: np.random.Generator
) -> Float[np.ndarray, "_"]:
    """Return ``wanted`` rising places from 0 to ``count`` - 1, at a tempo that comes and goes."""
    knots = stream.normal(0, rhythm, wanted // KNOT + 2)
    steps = np.exp(np.interp(np.arange(wanted) / KNOT, np.arange(len(knots)), knots))
    places = steps.cumsum() - steps[0]
    found: np.ndarray = places * ((count - 1) / (places[-1] or 1.0))
    return found


def _between(rows: Float32[np.ndarray, "A B"], places: np.ndarray) -> np.ndarray:
    """Return rows at fractional places, linearly interpolated."""
    below = np.minimum(places.astype(np.int64), len(rows) - 1)
    above = np.minimum(below + 1, len(rows) - 1)
    share = (places - below).astype(np.float32)[:, None]
    found: np.ndarray = rows[below] * (1 - share) + rows[above] * share
    return found
