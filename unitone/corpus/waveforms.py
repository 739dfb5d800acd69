"""The waveform of an utterance, decoded ahead of the encoder by a few threads.

No result depends on how many threads there are: waveforms come out in the order asked for.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from unitone.corpus import audio
from unitone.corpus.audio import SAMPLE_RATE, Statistics
from unitone.corpus.stored_cuts import loaded
from unitone.corpus.utterance import Utterance
from unitone.errors import CorpusError

AHEAD = 4
"""Waveforms each thread may be ahead of the encoder; bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class LoadedWaveform:
    """A waveform, or the statistics of one too long to be held, or why there is neither."""

    utterance: Utterance
    waveform: Float[np.ndarray, "N"] | None = None
    statistics: Statistics | None = None
    error: str | None = None


def load_ahead(
    utterances: Iterable[Utterance], *, longest: int, workers: int, rate: int = SAMPLE_RATE
) -> Iterator[LoadedWaveform]:
    """Yield the waveforms of ``utterances``; those over ``longest`` samples as statistics only."""
    waiting: deque[Future[LoadedWaveform]] = deque()
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        try:
            for utterance in utterances:
                waiting.append(pool.submit(load, utterance, longest=longest, rate=rate))
                if len(waiting) > AHEAD * max(workers, 1):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def load(utterance: Utterance, *, longest: int, rate: int = SAMPLE_RATE) -> LoadedWaveform:
    """Read one waveform at ``rate`` Hz; what is wrong with it becomes ``error``."""
    try:
        if utterance.cut is not None:
            waveform = _load_cut(utterance, rate)
        else:
            waveform = audio.read(utterance.clip, limit=longest, rate=rate)
        if len(waveform) <= longest:
            return LoadedWaveform(utterance=utterance, waveform=waveform)
        if utterance.cut is None:
            return LoadedWaveform(utterance=utterance, statistics=audio.statistics(utterance.clip))
    except CorpusError as error:
        return LoadedWaveform(utterance=utterance, error=str(error))
    wide = waveform.astype(np.float64)
    known = Statistics(num_samples=len(wide), mean=float(wide.mean()), variance=float(wide.var()))
    return LoadedWaveform(utterance=utterance, statistics=known)


def stream_waveform(utterance: Utterance) -> Iterator[Float[np.ndarray, "N"]]:
    """Yield the waveform of a long utterance block by block.

    Raises:
        CorpusError: as `unitone.corpus.audio.stream`.
    """
    if utterance.cut is None:
        return audio.stream(utterance.clip)
    return iter([_load_cut(utterance, SAMPLE_RATE)])


def _load_cut(utterance: Utterance, wanted: int) -> Float[np.ndarray, "N"]:
    """Load a cut whose audio is no plain file (Shar, mixed, command) through Lhotse."""
    import soxr

    try:
        cut = loaded(utterance.cut)
        samples = np.asarray(cut.load_audio(), np.float32)
    except Exception as error:  # Lhotse lets through whatever its many back ends raise
        raise CorpusError(f"Lhotse can't load the audio of cut {utterance.id}: {error}") from error
    mono: np.ndarray = samples.mean(axis=0, dtype=np.float32)
    rate = cut.sampling_rate
    if rate != wanted:
        mono = soxr.resample(mono, rate, wanted, quality="HQ")
    if not np.isfinite(mono).all() or not mono.any():
        raise CorpusError(f"cut {utterance.id}: every sample is zero, or some are not numbers")
    return mono
