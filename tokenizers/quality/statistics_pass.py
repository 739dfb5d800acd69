"""The second pass of a build: units of a few hours, for the subwords and the quality report.

Some of the utterances that k-means learnt from are encoded once more, now that there are centroids:
in an order that depends on the seed and their ids alone, until the hours asked for are there.
Finished ones are kept in a journal, so a killed build goes on where it was.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32

from unitone import seeding
from unitone.corpus.audio import SAMPLE_RATE
from unitone.corpus.utterance import Utterance
from unitone.errors import CorpusError
from unitone.logs import Progress
from unitone.resume import Journal
from unitone.tokenizers.extract import Extractor, Features, extract
from unitone.tokenizers.kmeans.segments import units_of
from unitone.tokenizers.kmeans.units import deduplicate, expand


@dataclass(frozen=True, kw_only=True)
class CollectedUnits:
    """The units of one utterance, or of the beginning of a long one."""

    utterance: Utterance
    units: Int32[np.ndarray, "T"]
    num_samples: int
    """Samples at 16 kHz that the units cover."""

    def sequence(self, *, deduplicated: bool) -> Int32[np.ndarray, "_"]:
        """Return what a language model would see: all units, or those without repetitions."""
        return deduplicate(self.units)[0] if deduplicated else self.units


def collect_units(
    utterances: Sequence[Utterance],
    extractor: Extractor,
    centroids: Float[np.ndarray, "K D"],
    *,
    duration_penalty: float,
    seconds: float,
    seed: int,
    workers: int,
    batch_seconds: float,
    journal: Path,
) -> list[CollectedUnits]:
    """Return the units of ``seconds`` of speech, of all of it if there is less."""
    book = Journal(journal)
    known = {record["id"]: record for record in book.records()}
    nearest = torch.from_numpy(centroids).to(extractor.device)
    order = shuffled(utterances, seed)
    found = [_restored(u, known[u.id]) for u in order if u.id in known]
    covered = sum(item.num_samples for item in found) / SAMPLE_RATE
    rest = [u for u in order if u.id not in known]
    stated = [one.stated_duration for one in utterances]
    total = seconds if None in stated else min(seconds, sum(one or 0.0 for one in stated))
    with closing(book), Progress("statistics", total=total, unit="s of audio") as bar:
        bar.advance(covered)
        for block in range(0, len(rest), 64):
            for item in extract(
                extractor, rest[block : block + 64], workers=workers, batch_seconds=batch_seconds
            ):
                if covered >= seconds:
                    return found
                if not isinstance(item, Features):
                    continue
                try:
                    collected = _units(
                        item,
                        extractor,
                        nearest,
                        duration_penalty=duration_penalty,
                        limit=seconds - covered,
                    )
                except CorpusError:  # listed by the pass before
                    continue
                book.append(_record(collected))
                found.append(collected)
                covered += collected.num_samples / SAMPLE_RATE
                bar.advance(collected.num_samples / SAMPLE_RATE)
    return found


def shuffled(utterances: Sequence[Utterance], seed: int) -> list[Utterance]:
    """Return the utterances in a random order that their ids alone decide."""
    keyed = [
        (int(seeding.stream(seed, "survey", u.id).bit_generator.random_raw()), u.id, u)
        for u in utterances
    ]
    return [utterance for _, _, utterance in sorted(keyed, key=lambda item: item[:2])]


def _units(
    features: Features,
    extractor: Extractor,
    centroids: torch.Tensor,
    *,
    duration_penalty: float,
    limit: float,
) -> CollectedUnits:
    """Take windows of one utterance until ``limit`` seconds are covered."""
    chunks: list[np.ndarray] = []
    frames = 0
    for chunk in features.chunks:
        chunks.append(units_of(chunk, centroids, duration_penalty=duration_penalty))
        frames += len(chunk)
        if frames >= limit * extractor.frame_rate:
            break
    whole = frames == features.num_frames
    num_samples = features.num_samples if whole else frames * extractor.encoder.hop
    return CollectedUnits(
        utterance=features.utterance, units=np.concatenate(chunks), num_samples=num_samples
    )


def _record(item: CollectedUnits) -> dict[str, Any]:
    units, durations = deduplicate(item.units)
    return {
        "id": item.utterance.id,
        "units": units.tolist(),
        "durations": durations.tolist(),
        "num_samples": item.num_samples,
    }


def _restored(utterance: Utterance, record: Mapping[str, Any]) -> CollectedUnits:
    units = expand(np.asarray(record["units"], np.int32), np.asarray(record["durations"], np.int32))
    return CollectedUnits(utterance=utterance, units=units, num_samples=record["num_samples"])
