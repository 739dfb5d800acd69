"""How good a set of units is: cluster usage, rates and bitrates, and what it knows about labels.

``measure`` makes one pass over the utterances and keeps counts only. Axes: T frames, Y labels,
K clusters.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64

from unitone import seeding
from unitone.errors import CorpusError
from unitone.tokenizers.kmeans.units import deduplicate
from unitone.tokenizers.quality.agreement import (
    LabelQuality,
    Labels,
    LabelTable,
    entropy,
    frame_labels,
    spread_characters,
)

NUM_RATE_BINS = 40
"""Bins of the units-per-second histogram, from 0 to the frame rate."""
LONGEST_RUN = 40
"""Frames; the last bin of the run-length histogram holds all longer runs."""
NUM_TOP_UNITS = 5

_CHANCE_WINDOW = 256
"""Utterances among which the texts are shuffled for the chance level."""


@dataclass(frozen=True, kw_only=True)
class UtteranceUnits:
    id: str
    units: Int[np.ndarray, "T"]
    """One a frame, before deduplication."""
    num_samples: int
    labels: Labels | None = None
    """Phones with times, where an alignment exists."""
    text: str | None = None
    subwords: int | None = None
    """Number of subwords of the deduplicated units, where there is a subword model."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    edges: tuple[float, ...]
    """One more than counts; a value on an inner edge counts to its right."""
    counts: tuple[int, ...]
    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A way to write the speech as tokens, and what it costs."""

    name: str
    vocabulary: int
    tokens: int
    tokens_per_second: float
    bits_per_second: float
    """Tokens per second times log2 of the vocabulary: the cost of a uniform code."""


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    utterances: int
    frames: int
    seconds: float
    k: int
    frame_rate: float
    """Nominal, Hz; ``streams`` count what there is."""
    inertia: float | None
    """Mean squared distance of a frame to its centroid."""
    usage: tuple[int, ...]
    """Frames of each cluster."""
    streams: tuple[Stream, ...]
    units_per_second: Histogram
    """Deduplicated units, one value an utterance."""
    run_length: Histogram
    """Frames of a run."""
    phones: LabelQuality | None
    phone_symbols: tuple[str, ...] = ()
    phone_table: Int64[np.ndarray, "Y K"] = field(
        default_factory=lambda: np.zeros((0, 0), np.int64)
    )
    """Frames of each phone in each cluster."""
    characters: LabelQuality | None
    """An approximation: the text spread evenly over the utterance stands in for an alignment."""
    characters_by_chance: LabelQuality | None
    """The same with the texts shuffled between utterances; what exceeds it is knowledge."""

    @property
    def used(self) -> int:
        """Clusters with at least one frame."""
        return sum(count > 0 for count in self.usage)

    @property
    def entropy_bits(self) -> float:
        """Entropy of the units, log2 k at most."""
        return entropy(np.array(self.usage)) / math.log(2)

    @property
    def perplexity(self) -> float:
        """2 to the entropy: as many equally used clusters would be as surprising."""
        return float(2**self.entropy_bits)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, units in the names, six decimals."""
        value: dict[str, Any] = {
            "utterances": self.utterances,
            "frames": self.frames,
            "seconds": self.seconds,
            "k": self.k,
            "frame_rate_hz": self.frame_rate,
            "inertia_per_frame": self.inertia,
            "clusters_used": self.used,
            "clusters_used_share": self.used / self.k,
            "unit_entropy_bits": self.entropy_bits,
            "unit_perplexity": self.perplexity,
            "streams": [vars(stream) for stream in self.streams],
            "deduplicated_units_per_second": vars(self.units_per_second),
            "run_length_frames": vars(self.run_length),
            "phones": self.phones and self.phones.to_json() | {"top_units": self.top_units()},
            "characters_spread_evenly": self.characters and self.characters.to_json(),
            "characters_shuffled_chance": (
                self.characters_by_chance and self.characters_by_chance.to_json()
            ),
            "cluster_frames": self.usage,
        }
        return dict(_rounded(value))

    def top_units(self) -> list[dict[str, Any]]:
        """For each phone, the commonest first: its frames and the units that hold most of them."""
        rows = []
        total = self.phone_table.sum()
        owner = self.phone_table.argmax(axis=0)
        for row in np.argsort(-self.phone_table.sum(axis=1), kind="stable"):
            counts = self.phone_table[row]
            best = np.argsort(-counts, kind="stable")[:NUM_TOP_UNITS]
            rows.append(
                {
                    "phone": self.phone_symbols[row],
                    "share": counts.sum() / total,
                    "found": counts[owner == row].sum() / counts.sum(),
                    "units": [int(unit) for unit in best if counts[unit]],
                    "shares": [counts[unit] / counts.sum() for unit in best if counts[unit]],
                }
            )
        return rows


def bitrate(tokens_per_second: float, vocabulary: int) -> float:
    """Return bits per second of a uniform code.

    >>> round(bitrate(50.0, 2000))
    548
    """
    return tokens_per_second * math.log2(vocabulary)


def measure(
    utterances: Iterable[UtteranceUnits],
    *,
    k: int,
    frame_rate: float,
    inertia: float | None,
    num_subwords: int | None,
    sample_rate: int = 16_000,
    seed: int = 0,
) -> QualityReport:
    """Read the utterances once and measure their units; memory does not grow with their number.

    ``num_subwords`` is the size of the subword model, None without one; ``seed`` is for the
    shuffle of the chance level.

    Raises:
        CorpusError: there is no frame, a unit is not in 0..k-1, or a piece count is missing.
    """
    tally = _Tally(k=k, frame_rate=frame_rate, sample_rate=sample_rate, seed=seed)
    for utterance in utterances:
        if num_subwords is not None and utterance.subwords is None:
            raise CorpusError(f"{utterance.id}: its number of unit subwords is missing")
        tally.add(utterance)
    return tally.report(inertia=inertia, num_subwords=num_subwords)


class _Tally:
    def __init__(self, *, k: int, frame_rate: float, sample_rate: int, seed: int) -> None:
        self._k = k
        self._frame_rate = frame_rate
        self._sample_rate = sample_rate
        self._usage = np.zeros(k, np.int64)
        self._utterances = self._samples = self._runs = self._subwords = 0
        self._rates = np.zeros(NUM_RATE_BINS, np.int64)
        self._rate_moments = np.zeros(2)
        self._run_lengths = np.zeros(LONGEST_RUN, np.int64)
        self._run_moments = np.zeros(2)
        self._phones, self._characters, self._chance = LabelTable(k), LabelTable(k), LabelTable(k)
        self._texts: list[tuple[str, np.ndarray]] = []
        self._generator = seeding.stream(seed, "character chance level")

    def add(self, utterance: UtteranceUnits) -> None:
        units = utterance.units
        if units.size and not 0 <= units.min() <= units.max() < self._k:
            raise CorpusError(f"{utterance.id}: a unit is not in 0..{self._k - 1}")
        self._utterances += 1
        self._samples += utterance.num_samples
        self._subwords += utterance.subwords or 0
        self._usage += np.bincount(units, minlength=self._k)
        self._add_runs(units, seconds=utterance.num_samples / self._sample_rate)
        if utterance.labels is not None:
            frames = frame_labels(
                utterance.labels, num_frames=units.size, frame_rate=self._frame_rate
            )
            self._phones.add(frames, units)
        if utterance.text is not None:
            self._add_text(utterance.text, units)

    def _add_runs(self, units: Int[np.ndarray, "T"], *, seconds: float) -> None:
        runs = deduplicate(units)[1].astype(np.int64)
        self._runs += runs.size
        self._run_lengths += np.bincount(np.minimum(runs, LONGEST_RUN) - 1, minlength=LONGEST_RUN)
        self._run_moments += (runs.sum(), (runs**2).sum())
        if seconds:
            rate = runs.size / seconds
            place = int(rate / self._frame_rate * NUM_RATE_BINS)
            self._rates[min(place, NUM_RATE_BINS - 1)] += 1
            self._rate_moments += (rate, rate**2)

    def _add_text(self, text: str, units: Int[np.ndarray, "T"]) -> None:
        characters = spread_characters(text, num_frames=units.size)
        if not characters:
            return
        self._characters.add(characters, units)
        self._texts.append((text, units))
        if len(self._texts) > _CHANCE_WINDOW + 1:  # two are kept, so that none is ever alone
            self._shuffle(self._texts[:_CHANCE_WINDOW])
            self._texts = self._texts[_CHANCE_WINDOW:]

    def _shuffle(self, texts: list[tuple[str, np.ndarray]]) -> None:
        """Give every utterance the text of the next one around a random circle."""
        circle = self._generator.permutation(len(texts))
        for here, there in zip(circle, np.roll(circle, 1), strict=True):
            units = texts[here][1]
            self._chance.add(spread_characters(texts[there][0], num_frames=units.size), units)

    def report(self, *, inertia: float | None, num_subwords: int | None) -> QualityReport:
        frames, seconds = int(self._usage.sum()), self._samples / self._sample_rate
        if not frames or not seconds:
            raise CorpusError("no units to measure: not one utterance has a frame")
        if len(self._texts) > 1:
            self._shuffle(self._texts)
        sizes = [("units", self._k, frames), ("deduplicated units", self._k, self._runs)]
        if num_subwords is not None:
            sizes.append(("unit subwords", num_subwords, self._subwords))
        symbols, table = self._phones.sorted()
        rate_edges = np.linspace(0, self._frame_rate, NUM_RATE_BINS + 1)
        return QualityReport(
            utterances=self._utterances,
            frames=frames,
            seconds=seconds,
            k=self._k,
            frame_rate=self._frame_rate,
            inertia=inertia,
            usage=tuple(self._usage.tolist()),
            streams=tuple(_stream(*size, seconds=seconds) for size in sizes),
            units_per_second=_histogram(rate_edges, self._rates, self._rate_moments),
            run_length=_histogram(
                np.arange(1, LONGEST_RUN + 2), self._run_lengths, self._run_moments
            ),
            phones=self._phones.quality(),
            phone_symbols=symbols,
            phone_table=table,
            characters=self._characters.quality(),
            characters_by_chance=self._chance.quality(),
        )


def _stream(name: str, vocabulary: int, tokens: int, *, seconds: float) -> Stream:
    return Stream(
        name=name,
        vocabulary=vocabulary,
        tokens=tokens,
        tokens_per_second=tokens / seconds,
        bits_per_second=bitrate(tokens / seconds, vocabulary),
    )


def _histogram(
    edges: Float[np.ndarray, "_"] | Int[np.ndarray, "_"],
    counts: Int64[np.ndarray, "_"],
    moments: Float[np.ndarray, "2"],
) -> Histogram:
    mean, square = moments / max(1, counts.sum())
    return Histogram(
        edges=tuple(map(float, edges)),
        counts=tuple(counts.tolist()),
        mean=float(mean),
        std=math.sqrt(max(0.0, square - mean**2)),
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(float(value), 6) if isinstance(value, float | np.floating) else value
