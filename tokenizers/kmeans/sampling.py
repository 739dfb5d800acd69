"""The streaming pass of a build: frames of the utterances drawn, resumable, in bounded memory.

Of a corpus with more speech than is asked for, utterances are drawn (`unitone.corpus.draw`), and of
each the same share of its frames. Where some can't be used, the pass goes on with the next in the
order of the draw, in rounds, until the speech asked for is there. Of a whole corpus all frames are
equally likely, whatever their utterance.

Progress is saved with the sample itself, in one file, so the two can't disagree. The sample doesn't
depend on the order of work (see `reservoir`), so neither resuming nor the engine changes it.
"""

import itertools
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from unitone import files
from unitone.corpus.audio import SAMPLE_RATE
from unitone.corpus.draw import Draw
from unitone.corpus.reading import ReadingConfig
from unitone.corpus.utterance import Skipped, Utterance
from unitone.errors import CheckpointError, CorpusError
from unitone.logs import Progress
from unitone.tokenizers import engines
from unitone.tokenizers.engines import Engine
from unitone.tokenizers.extract import Extractor, Features, extract
from unitone.tokenizers.kmeans.reservoir import Reservoir, even_priorities
from unitone.tokenizers.options import ExtractorConfig

logger = logging.getLogger(__name__)

BLOCK = 64
"""Utterances between two points at which progress can be saved."""
SAVE_EVERY = 60.0
"""Seconds between two saves at the least; more where saving takes long."""
SAVING_SHARE = 0.05
"""Share of the time that may go into saving."""
ENOUGH = 0.99
"""Share of the speech asked for that has to be usable; stated durations are rounded."""
_LEAST_WIDENED, _MOST_WIDENED = 1.05, 8.0
"""How much more of the corpus than the round before a further one takes in, at least, at most."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the pass reads, with what, and how much it keeps."""

    reading: ReadingConfig
    seconds: float
    """Speech to draw; infinite = the whole corpus."""
    extractor: ExtractorConfig
    dim: int
    capacity: int
    seed: int
    batch_seconds: float
    engine: Engine
    identity: str
    """What the sample depends on; one that was drawn otherwise is not gone on with."""


@dataclass(kw_only=True)
class Sample:
    """The frames k-means learns from, and what the pass that drew them found out."""

    frames: Float32[np.ndarray, "T D"]
    draw: Draw
    """What was encoded, and of how much."""
    seen: int
    """Frames of all that was encoded."""
    seconds: float
    """Audio of the usable utterances."""
    wall_seconds: float
    num_skipped: int

    def summary(self) -> dict[str, float | int | None]:
        """Return the figures of the report."""
        hours = self.seconds if self.draw.whole else self.draw.corpus_seconds
        return {
            "corpus_utterances": self.draw.num_utterances,
            "corpus_hours": None if hours is None else hours / 3600,
            "drawn_utterances": len(self.draw.utterances),
            "drawn_hours": self.seconds / 3600,
            "drawn_frames": self.seen,
            "sampling_seconds": self.wall_seconds,
            "hours_per_second": self.seconds / 3600 / max(self.wall_seconds, 1e-9),
            "times_real_time": self.seconds / max(self.wall_seconds, 1e-9),
        }


@dataclass(frozen=True, kw_only=True)
class _BlockResult:
    """What one block gave: its own small sample and its counts."""

    block: int
    reservoir: Reservoir
    samples: int
    skipped: list[Skipped]


def load_or_draw(
    settings: Settings, extractor: Extractor, first: Draw, *, work: Path, skipped: Path
) -> Sample:
    """Draw the sample, going on from what a killed run left in ``work``.

    The entries that can't be used are listed in the file ``skipped``, in the manifest's order.

    Args:
        settings: what to read and how.
        extractor: opened from them.
        first: what is drawn for ``settings.seconds``.
        work: folder of an unfinished pass.
        skipped: file to write.

    Raises:
        CorpusError: nothing could be used, or with ``strict`` something couldn't.
    """
    path = work / "sample.safetensors"
    reservoir = _resumed(path, settings)
    state = _State.of(reservoir)
    drawn = _rounds(settings, extractor, reservoir, state, first, path)
    manifest = settings.reading.manifest
    if not reservoir.is_exact:
        raise CorpusError(
            f"{manifest}: the durations it states are far too long, so that too few "
            "frames were kept; correct them, remove them, or run without --engine ray"
        )
    unusable = sorted([*drawn.skipped, *state.skipped], key=lambda item: item.line)
    files.write_json_lines(skipped, (item.to_json() for item in unusable))
    if settings.reading.strict and unusable:
        raise CorpusError(f"--strict: {unusable[0].id}: {unusable[0].reason}")
    if reservoir.seen == 0:
        path.unlink(missing_ok=True)  # so that a run after the cure tries again
        raise CorpusError(
            f"{manifest}: no utterance could be used; the first reason: {unusable[0].reason}"
        )
    return Sample(
        frames=reservoir.sample(),
        draw=drawn,
        seen=reservoir.seen,
        seconds=state.seconds,
        wall_seconds=state.wall,
        num_skipped=len(unusable),
    )


def _rounds(
    settings: Settings,
    extractor: Extractor,
    reservoir: Reservoir,
    state: "_State",
    first: Draw,
    path: Path,
) -> Draw:
    """Encode what is drawn, and the next utterances of the draw as long as too little is usable.

    Returns the last draw, which holds those before. What is done in each round, and whether there
    is another, is a function of the manifest and of what in it can be used.
    """
    drawn = first
    if not state.rounds:
        state.rounds.append((settings.seconds, 0))
    elif len(state.rounds) > 1:
        drawn = settings.reading.draw(state.rounds[-1][0], seed=settings.seed)
    while True:
        asked, start = state.rounds[-1]
        utterances: Sequence[Utterance] = drawn.utterances
        if start == 0 and drawn.whole:  # the order that batches were always made in
            utterances = sorted(utterances, key=lambda one: one.line)
        ends = [*range(start, len(utterances), BLOCK), len(utterances)]
        blocks = {begin: utterances[begin:end] for begin, end in itertools.pairwise(ends)}
        todo = {begin: block for begin, block in blocks.items() if begin not in state.done}
        if state.done and todo:
            logger.info("sampling goes on: %d of %d blocks are left", len(todo), len(blocks))
        if todo:
            _draw(settings, extractor, reservoir, state, drawn, todo, path)
        if drawn.whole or state.seconds >= ENOUGH * settings.seconds:
            return drawn
        wider = settings.seconds / max(state.seconds, settings.seconds / _MOST_WIDENED)
        state.rounds.append((asked * max(wider, _LEAST_WIDENED), len(utterances)))
        drawn = settings.reading.draw(state.rounds[-1][0], seed=settings.seed)
        logger.info(
            "%.2f h of the %.2f h asked for can be used: going on to utterance %d of the draw",
            *(state.seconds / 3600, settings.seconds / 3600, len(drawn.utterances)),
        )


def forget(folder: Path) -> None:
    """Remove the saved progress once the build is finished."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(kw_only=True)
class _State:
    rounds: list[tuple[float, int]] = field(default_factory=list)
    """Of each, the seconds drawn for and how many utterances were drawn before."""
    done: set[int] = field(default_factory=set)
    """Blocks, by how many utterances were drawn before."""
    samples: int = 0
    """At 16 kHz, of what could be used; an integer, whose sum doesn't depend on the order."""
    wall: float = 0.0
    skipped: list[Skipped] = field(default_factory=list)

    @classmethod
    def of(cls, reservoir: Reservoir) -> "_State":
        if "state" not in reservoir.metadata:
            return cls()
        values = json.loads(reservoir.metadata["state"])
        return cls(
            rounds=[(asked, start) for asked, start in values["rounds"]],
            done=set(values["done"]),
            samples=values["samples"],
            wall=values["wall"],
            skipped=[Skipped(**item) for item in values["skipped"]],
        )

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def to_json(self) -> str:
        return json.dumps(
            {
                "rounds": self.rounds,
                "done": sorted(self.done),
                "samples": self.samples,
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


def _draw(
    settings: Settings,
    extractor: Extractor,
    reservoir: Reservoir,
    state: _State,
    drawn: Draw,
    todo: Mapping[int, Sequence[Utterance]],
    path: Path,
) -> None:
    """Encode the blocks ``todo`` and offer their frames to the reservoir."""
    last, saving = time.perf_counter(), 0.0
    total = None if drawn.seconds is None else max(drawn.seconds - state.seconds, 0.0)
    job = SampleJob(
        settings=settings,
        even=not drawn.whole or len(state.rounds) > 1,
        share=_worth_sending(settings, extractor, drawn),
    )
    with Progress("sample", total=total, unit="s of audio") as bar:
        for result in _results(job, extractor, reservoir, todo):
            if settings.reading.strict and result.skipped:
                first = result.skipped[0]
                raise CorpusError(f"--strict: {first.id}: {first.reason}")
            if result.reservoir is not reservoir:
                reservoir.merge(result.reservoir)
            now = time.perf_counter()
            state.done.add(result.block)
            state.samples += result.samples
            state.skipped += result.skipped
            bar.advance(result.samples / SAMPLE_RATE)
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
    job: "SampleJob",
    extractor: Extractor,
    reservoir: Reservoir,
    todo: Mapping[int, Sequence[Utterance]],
) -> Iterator[_BlockResult]:
    """Yield the blocks' results: here straight into ``reservoir``, on Ray in one each."""
    if job.settings.engine == "ray":
        workers = job.settings.reading.workers
        yield from engines.run(job, list(todo.items()), engine="ray", workers=workers)
        return
    for number, block in todo.items():
        yield job.sample(extractor, number, block, reservoir)


def _worth_sending(settings: Settings, extractor: Extractor, drawn: Draw) -> float:
    """Return the share of frames that may end in the sample, as far as the manifest tells.

    Twice what is expected, so that stated durations may be off by as much; 1 where none are stated.
    """
    seconds = min(drawn.seconds or 0.0, settings.seconds)
    if not seconds:
        return 1.0
    return min(1.0, 2 * settings.capacity / (seconds * extractor.frame_rate))


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """A block of utterances to its own small reservoir, on one worker."""

    settings: Settings
    even: bool
    """Whether each utterance gives the same share of its frames."""
    share: float
    """Of a block's frames, about which share is worth sending."""

    def open(self) -> Callable[[tuple[int, Sequence[Utterance]]], Iterator[_BlockResult]]:
        """Load the encoder and return the sampling function."""
        settings = self.settings
        extractor = settings.extractor.open()

        def sample(work: tuple[int, Sequence[Utterance]]) -> Iterator[_BlockResult]:
            own = Reservoir(capacity=settings.capacity, dim=settings.dim, seed=settings.seed)
            result = self.sample(extractor, work[0], work[1], own)
            own.drop_above(self.share)
            yield result

        return sample

    def sample(
        self,
        extractor: Extractor,
        number: int,
        utterances: Sequence[Utterance],
        reservoir: Reservoir,
    ) -> _BlockResult:
        """Offer the frames of a block to a reservoir."""
        samples = 0
        skipped: list[Skipped] = []
        workers = self.settings.reading.workers if self.settings.engine == "local" else 1
        for item in extract(
            extractor, utterances, workers=workers, batch_seconds=self.settings.batch_seconds
        ):
            if isinstance(item, Skipped):
                skipped.append(item)
                continue
            try:
                self._offer(item, reservoir)
            except CorpusError as error:  # in the middle of a long recording
                skipped.append(item.utterance.skipped(str(error)))
                continue
            samples += item.num_samples
        return _BlockResult(block=number, reservoir=reservoir, samples=samples, skipped=skipped)

    def _offer(self, item: Features, reservoir: Reservoir) -> None:
        name, offset = item.utterance.id, 0
        ordered = even_priorities(reservoir.seed, name, item.num_frames) if self.even else None
        for chunk in item.chunks:
            end = offset + len(chunk)
            own = None if ordered is None else ordered[offset:end]
            frames = chunk.float().cpu().numpy()
            reservoir.add(name, frames, offset=offset, priorities=own)
            offset = end
