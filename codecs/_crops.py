"""Training data of the unit decoder: random stretches of utterances, cut at frames of units.

A round cuts every utterance at a random frame as often as its length asks for, so all audio has the
same weight; the stream is named by round and position, and nothing else decides it. A crop brings
the samples its windows need on both sides, silence beyond the ends of the recording.

Axes: B batch, T frames of units, S runs of equal units, N samples, E embedding width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int32
from torch import Tensor

from unitone import audio, seeding
from unitone.audio import SAMPLE_RATE
from unitone.codecs._network import NetworkConfig
from unitone.errors import ConfigError, CorpusError
from unitone.tokenizers.corpus import read_corpus
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.units import deduplicate, expand
from unitone.tokenizers.utterance import Utterance
from unitone.tokenizers.waveforms import load

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
    runs: Int[Tensor, "B S"]
    """The units of the crop without repetitions."""
    durations: Int[Tensor, "B S"]
    """Frames each run lasts in the whole utterance, so those cut by the crop count as well; 0 is
    padding."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    row: int
    """Position in `Material`."""
    first: int
    """Frame."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """The utterances of the shards that can be used, with units in memory and audio on disk.

    Runs of all utterances lie one behind the other: 8 bytes each, 1.5 MB an hour at 50 Hz.
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
        runs = slice(self.ends[row - 1] if row else 0, self.ends[row])
        return expand(self.units[runs], self.durations[runs])

    @cached_property
    def speakers(self) -> tuple[str, ...]:
        """The names of the voices, sorted."""
        return tuple(sorted({speaker_of(utterance) for utterance in self.utterances}))


def speaker_of(utterance: Utterance) -> str:
    """Return the speaker's name; where the manifest has none, all are one voice."""
    return utterance.speaker or "speaker"


def read_material(shards: TokenShards, manifest: Path, *, split: str | None) -> Material:
    """Join the rows of ``shards`` (of one split) with the recordings of the manifest.

    Raises:
        ConfigError: no row is in that split.
        CorpusError: the manifest lacks an utterance of the shards.
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
    """A `unitone.loading.BatchSource` of `CropBatch`; picklable."""

    material: Material
    network: NetworkConfig
    seed: int
    crop_frames: int
    batch_crops: int
    embeddings: Mapping[str, Float32[np.ndarray, "E"]] | None = None
    """External speaker embeddings by utterance id or speaker; None = speakers are numbers."""

    def plan(self, round: int) -> Sequence[tuple[Crop, ...]]:
        """Return the crops of a round, shuffled, in batches; the last one may be smaller."""
        draw = seeding.stream(self.seed, "crops", round)
        lengths = self.material.num_frames
        share = lengths / self.crop_frames
        times = np.floor(share + draw.random(len(lengths))).astype(int).clip(min=share < 1)
        rows = draw.permutation(np.repeat(np.arange(len(lengths)), times))
        room = (lengths[rows] - self.crop_frames).clip(min=0)
        firsts = np.floor(draw.random(len(rows)) * (room + 1)).astype(int)
        crops = [Crop(row=int(r), first=int(f)) for r, f in zip(rows, firsts, strict=True)]
        size = self.batch_crops
        return [tuple(crops[i : i + size]) for i in range(0, len(crops), size)]

    def load(self, spec: tuple[Crop, ...]) -> CropBatch:
        """Read the samples of the crops.

        Raises:
            CorpusError: a recording can't be read.
        """
        size, framing, hop = self.crop_frames, self.network.framing, self.network.hop
        units = np.zeros((len(spec), size), np.int64)
        valid = np.zeros((len(spec), size), np.bool_)
        waves = np.zeros((len(spec), framing.left + size * hop + framing.right), np.float32)
        runs = np.zeros((len(spec), size), np.int64)
        durations = np.zeros((len(spec), size), np.int64)
        for index, crop in enumerate(spec):
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
            inside, lasting = _runs(frames, crop.first, len(stretch))
            runs[index, : len(inside)], durations[index, : len(inside)] = inside, lasting
        longest = int((durations > 0).sum(axis=1).max())
        return CropBatch(
            units=torch.from_numpy(units),
            valid=torch.from_numpy(valid),
            speakers=self._speakers([self.material.utterances[crop.row] for crop in spec]),
            waves=torch.from_numpy(waves),
            runs=torch.from_numpy(runs[:, :longest]),
            durations=torch.from_numpy(durations[:, :longest]),
        )

    def _speakers(self, utterances: Sequence[Utterance]) -> Tensor:
        if self.embeddings is None:
            numbers = {name: number for number, name in enumerate(self.network.speakers)}
            return torch.tensor([numbers[speaker_of(one)] for one in utterances])
        table = self.embeddings
        rows = [table.get(one.id, table.get(speaker_of(one))) for one in utterances]
        return torch.from_numpy(np.stack([row for row in rows if row is not None]))


def _runs(
    frames: Int32[np.ndarray, "T"], first: int, num_frames: int
) -> tuple[Int32[np.ndarray, "S"], Int32[np.ndarray, "S"]]:
    """Return the runs that overlap a stretch of frames, with their whole durations."""
    units, durations = deduplicate(frames)
    ends = np.cumsum(durations)
    overlap = slice(
        int(np.searchsorted(ends, first, side="right")),
        int(np.searchsorted(ends, first + num_frames - 1, side="right")) + 1,
    )
    return units[overlap], durations[overlap]


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
