"""The streaming pass of a build: a uniform sample of frames, resumable, in bounded memory.

Progress is saved with the sample itself, in one file, so the two can't disagree. The sample doesn't
depend on the order of work (see `reservoir`), so neither resuming nor the engine changes it.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from unitone import files
from unitone.corpus.audio import SAMPLE_RATE
from unitone.corpus.corpus import Corpus
from unitone.corpus.utterance import Skipped, Utterance
from unitone.errors import CheckpointError, CorpusError
from unitone.logs import Progress
from unitone.tokenizers import engines
from unitone.tokenizers.engines import Engine
from unitone.tokenizers.extract import Extractor, extract
from unitone.tokenizers.kmeans.reservoir import Reservoir
from unitone.tokenizers.options import ExtractorConfig

logger = logging.getLogger(__name__)

BLOCK = 64
"""Utterances between two points at which progress can be saved."""
SAVE_EVERY = 60.0
"""Seconds between two saves at the least; more where saving takes long."""
SAVING_SHARE = 0.05
"""Share of the time that may go into saving."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the pass reads, with what, and how much it keeps."""

    corpus: Corpus
    extractor: ExtractorConfig
    dim: int
    capacity: int
    seed: int
    workers: int
    batch_seconds: float
    engine: Engine
    strict: bool
    identity: str
    """What the sample depends on; one that was drawn otherwise is not gone on with."""


@dataclass(kw_only=True)
class Sample:
    """The frames k-means learns from, and what the pass that drew them found out."""

    frames: Float32[np.ndarray, "T D"]
    seen: int
    """Frames of the whole corpus."""
    seconds: float
    """Audio of the usable utterances."""
    wall_seconds: float
    num_skipped: int

    def summary(self) -> dict[str, float | int]:
        """Return the figures of the report."""
        return {
            "corpus_frames": self.seen,
            "corpus_hours": self.seconds / 3600,
            "sampling_seconds": self.wall_seconds,
            "hours_per_second": self.seconds / 3600 / max(self.wall_seconds, 1e-9),
            "times_real_time": self.seconds / max(self.wall_seconds, 1e-9),
        }


@dataclass(frozen=True, kw_only=True)
class _BlockResult:
    """What one block gave: its own small sample and its counts."""

    block: int
    reservoir: Reservoir
    seconds: float
    skipped: list[Skipped]


def load_or_draw(settings: Settings, extractor: Extractor, *, work: Path, skipped: Path) -> Sample:
    """Draw the sample, going on from what a killed run left in ``work``.

    The entries that can't be used are listed in the file ``skipped``, in the manifest's order.

    Raises:
        CorpusError: nothing could be used, or with ``strict`` something couldn't.
    """
    path = work / "sample.safetensors"
    reservoir = _resumed(path, settings)
    state = _State.of(reservoir)
    blocks = _blocks(settings.corpus)
    todo = [number for number in range(len(blocks)) if number not in state.done]
    if state.done and todo:
        logger.info("sampling goes on: %d of %d blocks are done", len(state.done), len(blocks))
    if todo:
        _draw(settings, extractor, reservoir, state, blocks, todo, path)
    if not reservoir.is_exact:
        raise CorpusError(
            f"{settings.corpus.path}: the durations it states are far too long, so that too few "
            "frames were kept; correct them, remove them, or run without --engine ray"
        )
    unusable = sorted([*settings.corpus.skipped, *state.skipped], key=lambda item: item.line)
    files.write_json_lines(skipped, (item.to_json() for item in unusable))
    if settings.strict and unusable:
        raise CorpusError(f"--strict: {unusable[0].id}: {unusable[0].reason}")
    if reservoir.seen == 0:
        path.unlink(missing_ok=True)  # so that a run after the cure tries again
        raise CorpusError(
            f"{settings.corpus.path}: no utterance could be used; the first reason: "
            f"{unusable[0].reason}"
        )
    return Sample(
        frames=reservoir.sample(),
        seen=reservoir.seen,
        seconds=state.seconds,
        wall_seconds=state.wall,
        num_skipped=len(unusable),
    )


def forget(folder: Path) -> None:
    """Remove the saved progress once the build is finished."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(kw_only=True)
class _State:
    done: set[int] = field(default_factory=set)
    seconds: float = 0.0
    wall: float = 0.0
    skipped: list[Skipped] = field(default_factory=list)

    @classmethod
    def of(cls, reservoir: Reservoir) -> "_State":
        if "state" not in reservoir.metadata:
            return cls()
        values = json.loads(reservoir.metadata["state"])
        return cls(
            done=set(values["done"]),
            seconds=values["seconds"],
            wall=values["wall"],
            skipped=[Skipped(**item) for item in values["skipped"]],
        )

    def to_json(self) -> str:
        return json.dumps(
            {
                "done": sorted(self.done),
                "seconds": self.seconds,
                "wall": self.wall,
                "skipped": [item.to_json() for item in self.skipped],
            }
        )


def _resumed(path: Path, settings: Settings) -> Reservoir:
    if path.is_file():
        try:
            found = Reservoir.load(path)
        except CheckpointError as error:
            logger.warning("%s; starting the pass again", error)
        else:
            if found.metadata.get("identity") == settings.identity:
                return found
            logger.info("the options have changed; starting the pass again")
    fresh = Reservoir(capacity=settings.capacity, dim=settings.dim, seed=settings.seed)
    fresh.metadata["identity"] = settings.identity
    return fresh


def _blocks(corpus: Corpus) -> list[list[Utterance]]:
    return [
        [e for e in corpus.entries[first : first + BLOCK] if isinstance(e, Utterance)]
        for first in range(0, len(corpus.entries), BLOCK)
    ]


def _draw(
    settings: Settings,
    extractor: Extractor,
    reservoir: Reservoir,
    state: _State,
    blocks: Sequence[Sequence[Utterance]],
    todo: Sequence[int],
    path: Path,
) -> None:
    last, saving = time.perf_counter(), 0.0
    stated = [u.stated_duration for number in todo for u in blocks[number]]
    total = None if None in stated else sum(seconds or 0.0 for seconds in stated)
    with Progress("sample", total=total, unit="s of audio") as bar:
        for result in _results(settings, extractor, reservoir, blocks, todo):
            if settings.strict and result.skipped:
                first = result.skipped[0]
                raise CorpusError(f"--strict: {first.id}: {first.reason}")
            if result.reservoir is not reservoir:
                reservoir.merge(result.reservoir)
            now = time.perf_counter()
            state.done.add(result.block)
            state.seconds += result.seconds
            state.skipped += result.skipped
            bar.advance(result.seconds)
            if now - last >= max(SAVE_EVERY, saving / SAVING_SHARE):
                state.wall += now - last
                reservoir.metadata["state"] = state.to_json()
                reservoir.save(path)
                saving = time.perf_counter() - now
                last = time.perf_counter()
    state.wall += time.perf_counter() - last
    reservoir.metadata["state"] = state.to_json()
    reservoir.save(path)


def _results(
    settings: Settings,
    extractor: Extractor,
    reservoir: Reservoir,
    blocks: Sequence[Sequence[Utterance]],
    todo: Sequence[int],
) -> Iterator[_BlockResult]:
    """Yield the blocks' results: here straight into ``reservoir``, on Ray in one each."""
    if settings.engine == "ray":
        job = SampleJob(settings=settings, share=_worth_sending(settings, extractor))
        work = [(number, blocks[number]) for number in todo]
        yield from engines.run(job, work, engine="ray", workers=settings.workers)
        return
    for number in todo:
        yield _sample_block(settings, extractor, number, blocks[number], reservoir)


def _worth_sending(settings: Settings, extractor: Extractor) -> float:
    """Return the share of frames that may end in the sample, as far as the manifest tells.

    Twice what is expected, so that stated durations may be off by as much; 1 where none are stated.
    """
    seconds = settings.corpus.stated_seconds(range(len(settings.corpus.entries)))
    if not seconds:
        return 1.0
    return min(1.0, 2 * settings.capacity / (seconds * extractor.frame_rate))


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """A block of utterances to its own small reservoir, on one worker."""

    settings: Settings
    share: float
    """Of a block's frames, about which share is worth sending."""

    def open(self) -> Callable[[tuple[int, Sequence[Utterance]]], Iterator[_BlockResult]]:
        """Load the encoder and return the sampling function."""
        settings = self.settings
        extractor = settings.extractor.open()

        def sample(work: tuple[int, Sequence[Utterance]]) -> Iterator[_BlockResult]:
            own = Reservoir(capacity=settings.capacity, dim=settings.dim, seed=settings.seed)
            result = _sample_block(settings, extractor, work[0], work[1], own)
            own.drop_above(self.share)
            yield result

        return sample


def _sample_block(
    settings: Settings,
    extractor: Extractor,
    number: int,
    utterances: Sequence[Utterance],
    reservoir: Reservoir,
) -> _BlockResult:
    seconds = 0.0
    skipped: list[Skipped] = []
    workers = settings.workers if settings.engine == "local" else 1
    for item in extract(
        extractor, utterances, workers=workers, batch_seconds=settings.batch_seconds
    ):
        if isinstance(item, Skipped):
            skipped.append(item)
            continue
        offset = 0
        try:
            for chunk in item.chunks:
                reservoir.add(item.utterance.id, chunk.float().cpu().numpy(), offset=offset)
                offset += len(chunk)
        except CorpusError as error:  # in the middle of a long recording
            skipped.append(item.utterance.skipped(str(error)))
            continue
        seconds += item.num_samples / SAMPLE_RATE
    return _BlockResult(block=number, reservoir=reservoir, seconds=seconds, skipped=skipped)
