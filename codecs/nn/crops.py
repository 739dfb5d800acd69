"""Training data of the unit decoder: random stretches of utterances, cut at frames of units.

An epoch cuts every utterance at a random frame as often as its length asks for, so all audio has
the same weight; the stream is named by the number of the epoch, and nothing else decides it. A crop
brings the samples its windows need on both sides, silence beyond the ends of the recording.
Durations are learnt from units alone, so a batch has whole sentences for them, several for each
crop.

Axes: B batch, M stretches, T frames of units, S runs of equal units, N samples, E embedding width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int32
from torch import Tensor

from unitone import seeding
from unitone.codecs.nn.network import NetworkConfig
from unitone.corpus import audio, speaker_embeddings
from unitone.corpus.audio import SAMPLE_RATE
from unitone.corpus.corpus import read_corpus
from unitone.corpus.utterance import Utterance
from unitone.corpus.waveforms import load
from unitone.errors import ConfigError, CorpusError
from unitone.tokenizers.kmeans.units import deduplicate, expand
from unitone.tokenizers.shards import TokenShards

TIMED = 4
"""Stretches for the durations, for each crop."""
ALIKE = 16
"""Batches whose stretches are sorted by length together."""
LONGEST_TIMED = 256
"""Runs of such a stretch at the most; speech has 15 to 50 a second."""
EDGE = SAMPLE_RATE // 20
"""Samples read before a crop of a recording at another rate, where the resampler starts up."""


@dataclass(frozen=True, kw_only=True)
class CropBatch:
    """Crops of equal length; what a short utterance doesn't fill is zero and not valid."""

    units: Int[Tensor, "B T"]
    valid: Bool[Tensor, "B T"]
    speakers: Int[Tensor, "B"] | Float[Tensor, "B E"]
    """Numbers, or external embeddings."""
    waves: Float[Tensor, "B N"]
    """T hops with the ``left`` and ``right`` samples of the framing around them."""
    runs: Int[Tensor, "M S"]
    """Units without repetitions, of M other utterances."""
    durations: Int[Tensor, "M S"]
    """Frames each run lasts; 0 is padding."""
    timed_speakers: Int[Tensor, "M"] | Float[Tensor, "M E"]


@dataclass(frozen=True, kw_only=True)
class Crop:
    row: int
    """Position in `Material`."""
    first: int
    """Frame."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    row: int
    """Position in `Material`."""
    first: int
    """Run."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a batch is made of."""

    crops: tuple[Crop, ...]
    timed: tuple[Stretch, ...]


@dataclass(frozen=True, kw_only=True)
class Material:
    """The utterances of the shards that can be used, with units in memory and audio on disk.

    Runs of all utterances lie one after the other: 8 bytes each, 1.5 MB an hour at 50 Hz.
    """

    utterances: tuple[Utterance, ...]
    units: Int32[np.ndarray, "R"]
    durations: Int32[np.ndarray, "R"]
    ends: Int[np.ndarray, "U"]
    """Of every utterance's runs."""
    num_frames: Int[np.ndarray, "U"]
    num_samples: Int[np.ndarray, "U"]
    """At 16 kHz."""

    def frames(self, row: int) -> Int32[np.ndarray, "T"]:
        """Return one unit a frame of an utterance."""
        return expand(*self.runs(row))

    def runs(self, row: int) -> tuple[Int32[np.ndarray, "S"], Int32[np.ndarray, "S"]]:
        """Return the runs of an utterance and how many frames each lasts."""
        runs = slice(self.ends[row - 1] if row else 0, self.ends[row])
        return self.units[runs], self.durations[runs]

    @cached_property
    def num_runs(self) -> Int[np.ndarray, "U"]:
        """Of every utterance."""
        counts: np.ndarray = np.diff(self.ends, prepend=0)
        return counts

    @cached_property
    def speakers(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted({speaker_of(utterance) for utterance in self.utterances}))


NOBODY = "speaker"
"""The speaker of utterances that have none."""


def speaker_of(utterance: Utterance) -> str:
    """Return the speaker's name; where the manifest has none, all are one speaker."""
    return utterance.speaker or NOBODY


def read_material(shards: TokenShards, manifest: Path, *, split: str | None) -> Material:
    """Join the rows of ``shards`` (of one split) with the recordings of the manifest.

    Raises:
        ConfigError: no row is in that split.
        CorpusError: an utterance of the shards is not in the manifest.
    """
    recordings = {utterance.id: utterance for utterance in read_corpus(manifest).utterances}
    utterances, units, durations, num_frames, num_samples = [], [], [], [], []
    for row in shards.rows():
        if split is not None and row["split"] != split:
            continue
        if row["id"] not in recordings:
            raise CorpusError(
                f"{manifest} has no utterance {row['id']!r}, the shards have; give the manifest "
                "they were made from"
            )
        utterances.append(recordings[row["id"]])
        frames = expand(np.array(row["units"], np.int32), np.array(row["durations"], np.int32))
        runs, lasting = deduplicate(frames)
        units.append(runs)
        durations.append(lasting)
        num_frames.append(len(frames))
        num_samples.append(row["num_samples"])
    if not utterances:
        raise ConfigError(f"--split {split}: no row of the shards has it")
    return Material(
        utterances=tuple(utterances),
        units=np.concatenate(units),
        durations=np.concatenate(durations),
        ends=np.cumsum([len(runs) for runs in units]),
        num_frames=np.array(num_frames),
        num_samples=np.array(num_samples),
    )


@dataclass(frozen=True, kw_only=True)
class CropSource:
    """A `unitone.train.loading.BatchSource` of `CropBatch`; picklable."""

    material: Material
    network: NetworkConfig
    seed: int
    crop_frames: int
    batch_crops: int
    embeddings: Mapping[str, Float32[np.ndarray, "E"]] | None = None
    """External speaker embeddings by utterance id or speaker; None = speakers are numbers."""

    def plan(self, window: int) -> Sequence[Spec]:
        """Return the crops of an epoch, shuffled, in batches; the last one may be smaller."""
        draw = seeding.stream(self.seed, "crops", window)
        lengths = self.material.num_frames
        share = lengths / self.crop_frames
        times = np.floor(share + draw.random(len(lengths))).astype(int).clip(min=share < 1)
        rows = draw.permutation(np.repeat(np.arange(len(lengths)), times))
        room = (lengths[rows] - self.crop_frames).clip(min=0)
        firsts = np.floor(draw.random(len(rows)) * (room + 1)).astype(int)
        crops = [Crop(row=int(r), first=int(f)) for r, f in zip(rows, firsts, strict=True)]
        size = self.batch_crops
        batches = [tuple(crops[i : i + size]) for i in range(0, len(crops), size)]
        timed = self._timed(draw, rows, count=len(batches))
        return [Spec(crops=one, timed=other) for one, other in zip(batches, timed, strict=True)]

    def _timed(
        self, draw: np.random.Generator, rows: Int[np.ndarray, "C"], *, count: int
    ) -> list[tuple[Stretch, ...]]:
        """Draw stretches of runs for ``count`` batches, those of a batch of like length.

        An utterance's chance grows with its length, as a crop's does.
        """
        size = TIMED * self.batch_crops
        rows = rows[draw.integers(len(rows), size=(-(-count // ALIKE), ALIKE * size))]
        longest = self.material.num_runs[rows]
        rows = np.take_along_axis(rows, longest.argsort(axis=1, kind="stable"), axis=1)
        rows = draw.permutation(rows.reshape(-1, size))[:count]
        room = (self.material.num_runs[rows] - LONGEST_TIMED).clip(min=0)
        firsts = np.floor(draw.random(rows.shape) * (room + 1)).astype(int)
        return [
            tuple(Stretch(row=int(r), first=int(f)) for r, f in zip(*pair, strict=True))
            for pair in zip(rows, firsts, strict=True)
        ]

    def load(self, spec: Spec) -> CropBatch:
        """Read the samples of the crops.

        Raises:
            CorpusError: a recording can't be read.
        """
        size, framing, hop = self.crop_frames, self.network.framing, self.network.hop
        count = len(spec.crops)
        units = np.zeros((count, size), np.int64)
        valid = np.zeros((count, size), np.bool_)
        waves = np.zeros((count, framing.left + size * hop + framing.right), np.float32)
        for index, crop in enumerate(spec.crops):
            frames = self.material.frames(crop.row)
            stretch = frames[crop.first : crop.first + size]
            units[index, : len(stretch)], valid[index, : len(stretch)] = stretch, True
            begin = crop.first * hop - framing.left
            samples = read_samples(
                self.material.utterances[crop.row],
                first=max(begin, 0),
                end=min(
                    (crop.first + len(stretch)) * hop + framing.right,
                    int(self.material.num_samples[crop.row]),
                ),
            )
            offset = max(-begin, 0)
            waves[index, offset : offset + len(samples)] = samples
        runs, durations = self._runs(spec.timed)
        return CropBatch(
            units=torch.from_numpy(units),
            valid=torch.from_numpy(valid),
            speakers=self._speakers([crop.row for crop in spec.crops]),
            waves=torch.from_numpy(waves),
            runs=torch.from_numpy(runs),
            durations=torch.from_numpy(durations),
            timed_speakers=self._speakers([one.row for one in spec.timed]),
        )

    def _runs(
        self, timed: Sequence[Stretch]
    ) -> tuple[Int[np.ndarray, "M S"], Int[np.ndarray, "M S"]]:
        longest = min(max(int(self.material.num_runs[one.row]) for one in timed), LONGEST_TIMED)
        runs = np.zeros((len(timed), longest), np.int64)
        durations = np.zeros((len(timed), longest), np.int64)
        for index, one in enumerate(timed):
            units, lasting = self.material.runs(one.row)
            inside = slice(one.first, one.first + LONGEST_TIMED)
            number = len(units[inside])
            runs[index, :number], durations[index, :number] = units[inside], lasting[inside]
        return runs, durations

    def _speakers(self, rows: Sequence[int]) -> Tensor:
        utterances = [self.material.utterances[row] for row in rows]
        if self.embeddings is None:
            numbers = {name: number for number, name in enumerate(self.network.speakers)}
            return torch.tensor([numbers[speaker_of(one)] for one in utterances])
        table = self.embeddings
        names = [
            speaker_embeddings.find(table, id=one.id, speaker=speaker_of(one)) for one in utterances
        ]
        return torch.from_numpy(np.stack([table[name] for name in names if name is not None]))


def read_samples(utterance: Utterance, *, first: int, end: int) -> Float32[np.ndarray, "N"]:
    """Return samples ``first`` to ``end`` of an utterance that has them, at 16 kHz.

    Only that stretch is read where the audio is a plain file. In a recording at another rate it
    begins at the nearest sample, so up to half of one of its samples off.

    Raises:
        CorpusError: the recording can't be read, or is shorter than it was.
    """
    if utterance.cut is not None:
        loaded = load(utterance, longest=_LONGEST_CUT)
        if loaded.waveform is None:
            raise CorpusError(
                f"{utterance.id}: {loaded.error or 'a cut too long to be read whole'}"
            )
        samples = loaded.waveform[first:end]
    else:
        before = min(first, EDGE)
        clip = audio.Clip(
            path=utterance.clip.path,
            start=utterance.start + (first - before) / SAMPLE_RATE,
            duration=(end - first + before) / SAMPLE_RATE,
            channel=utterance.channel,
        )
        blocks = [np.zeros(0, np.float32), *audio.stream(clip)]
        samples = np.concatenate(blocks)[before : before + end - first]
    if len(samples) < end - first - 2:  # resampling rounds
        raise CorpusError(f"{utterance.id}: the recording has become shorter; encode it again")
    return samples


_LONGEST_CUT = 30 * 60 * SAMPLE_RATE
