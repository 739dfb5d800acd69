"""Recordings in, mono float32 out, 16 kHz or as asked: any format of libsndfile, rate and channels.

Reading is by blocks and resampling (soxr, high quality) keeps its state between them, so a file of
any length is read in bounded memory and gives the same samples however it is consumed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from unitone.corpus import mpeg
from unitone.errors import CorpusError

if TYPE_CHECKING:
    import soundfile

SAMPLE_RATE = 16_000
"""Hz; every model of the project works at this rate or says otherwise."""
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""Hz; a header that says anything else is damaged."""
SLACK = 0.1
"""Seconds that stated durations may be off: they are rounded, not by more."""
BLOCK = 10 * SAMPLE_RATE
"""Source frames read at a time: 10 s of 16 kHz audio, about 640 kB."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A stretch of a recording."""

    path: Path
    start: float = 0.0
    """Seconds from the beginning of the file."""
    duration: float | None = None
    """Seconds; None = to the end of the file."""
    channel: int | None = None
    """0-based channel; None = the mean of all."""
    expected: float | None = None
    """Seconds that the whole recording should have; another length is an error."""


def stream(clip: Clip, *, rate: int = SAMPLE_RATE) -> Iterator[Float[np.ndarray, "N"]]:
    """Yield the waveform block by block: at ``rate`` Hz, mono, float32, nominally in [-1, 1].

    Raises:
        CorpusError: the file is missing, not audio, cut off, holds NaN or infinity, has another
            length than its header or the manifest says, or the clip lies outside it.
    """
    import soundfile

    try:
        if not clip.path.is_file():
            raise CorpusError(f"{clip.path}: no such file")
        with soundfile.SoundFile(clip.path) as file:
            yield from _resampled(clip, file, wanted=rate)
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        # libsndfile's own errors are RuntimeErrors; the others are unreadable or impossible paths
        raise CorpusError(f"{clip.path}: not readable as audio ({error})") from error


def read(
    clip: Clip, *, limit: int | None = None, rate: int = SAMPLE_RATE
) -> Float[np.ndarray, "N"]:
    """Return the waveform of ``clip``; with ``limit``, stop once more than that many samples came.

    Raises:
        CorpusError: as `stream`; also when there is no sample, or every sample is zero.
    """
    blocks: list[np.ndarray] = []
    count = 0
    for block in stream(clip, rate=rate):
        blocks.append(block)
        count += len(block)
        if limit is not None and count > limit:
            break
    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    complete = limit is None or count <= limit
    if count == 0:
        raise CorpusError(f"{clip.path}: holds no samples")
    if complete and not waveform.any():
        raise CorpusError(f"{clip.path}: every sample is zero")
    return waveform


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What one pass over a waveform finds out."""

    num_samples: int
    mean: float
    variance: float
    """Biased (divided by the number of samples), as layer normalization has it."""


def statistics(clip: Clip) -> Statistics:
    """Count the samples of ``clip`` and return mean and variance, in one pass of bounded memory.

    Raises:
        CorpusError: as `read`.
    """
    count, total, squares = 0, 0.0, 0.0
    for block in stream(clip):
        wide = block.astype(np.float64)
        count += len(block)
        total += float(wide.sum())
        squares += float(wide @ wide)
    if count == 0:
        raise CorpusError(f"{clip.path}: holds no samples")
    if squares == 0.0:
        raise CorpusError(f"{clip.path}: every sample is zero")
    mean = total / count
    return Statistics(num_samples=count, mean=mean, variance=max(squares / count - mean**2, 0.0))


def _resampled(
    clip: Clip, file: "soundfile.SoundFile", *, wanted: int
) -> Iterator[Float[np.ndarray, "N"]]:
    import soxr

    rate = file.samplerate
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise CorpusError(f"{clip.path}: a sampling rate of {rate} Hz is not that of a recording")
    remaining = _seek(clip, file)
    if file.format in ("MP3", "MPEG"):
        _check_mpeg(clip, file)
    total = 0
    resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
    while remaining is None or remaining > 0:
        size = BLOCK if remaining is None else min(BLOCK, remaining)
        block = _mono(file.read(size, dtype="float32", always_2d=True), clip)
        if remaining is not None:
            remaining -= len(block)
        if len(block) == 0:
            break
        total += len(block)
        yield block if rate == wanted else resampler.resample_chunk(block)
    if rate != wanted:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    _check_length(clip, total, remaining, rate=rate, frames=file.frames)


def _check_length(clip: Clip, total: int, remaining: int | None, *, rate: int, frames: int) -> None:
    """Compare the samples that came with what the header and the manifest say."""
    missing = frames - round(clip.start * rate) - total if remaining is None else remaining
    if missing > SLACK * rate:
        raise CorpusError(
            f"{clip.path}: cut off, {missing / rate:.2f} s are missing of what its header says"
        )
    if clip.expected is None or remaining is not None:
        return
    # fairseq's counts are at the file's own rate, here read as 16 kHz
    expected = (clip.expected, clip.expected * SAMPLE_RATE / rate)
    if all(abs(seconds - total / rate) > SLACK + 0.01 * seconds for seconds in expected):
        raise CorpusError(
            f"{clip.path}: holds {total / rate:.2f} s, the manifest says {clip.expected:g}; "
            'mend one of them, or, for a part of the recording, give "start" as well'
        )


def _check_mpeg(clip: Clip, file: "soundfile.SoundFile") -> None:
    """Refuse an MP3 whose header promises fewer samples than its frames hold.

    libsndfile believes the first frame of a file of variable bit rate; without one it guesses the
    length, and reads no further.
    """
    held = mpeg.num_samples(clip.path)
    if held - file.frames > max(SLACK * file.samplerate, 4 * mpeg.LONGEST_FRAME):
        raise CorpusError(
            f"{clip.path}: its header says {file.frames / file.samplerate:.2f} s, its frames hold "
            f"{held / file.samplerate:.2f} s; write it anew, e.g. `ffmpeg -i FILE -c copy NEW.mp3`"
        )


def _seek(clip: Clip, file: "soundfile.SoundFile") -> int | None:
    """Go to the start of the clip; return how many source frames it has, None = to the end."""
    if clip.channel is not None and not 0 <= clip.channel < file.channels:
        raise CorpusError(
            f"{clip.path}: channel {clip.channel} asked for, the file has {file.channels}"
        )
    if clip.start > 0:
        first = round(clip.start * file.samplerate)
        if first >= file.frames:
            raise CorpusError(
                f"{clip.path}: start {clip.start} s lies after the end "
                f"({file.frames / file.samplerate:.3f} s)"
            )
        file.seek(first)
    if clip.duration is None:
        return None
    wanted: int = round(clip.duration * file.samplerate)
    rest: int = file.frames - round(clip.start * file.samplerate)
    if wanted > rest + SLACK * file.samplerate:
        raise CorpusError(
            f"{clip.path}: the clip ends {(wanted - rest) / file.samplerate:.2f} s after the end"
        )
    return wanted


def _mono(block: Float[np.ndarray, "N C"], clip: Clip) -> Float[np.ndarray, "N"]:
    if clip.channel is not None:
        mono = np.ascontiguousarray(block[:, clip.channel])
    else:
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    # the sum is finite exactly when every sample is, short of an overflow that is no audio either
    if not np.isfinite(mono.sum(dtype=np.float64)):
        raise CorpusError(f"{clip.path}: holds samples that are not finite numbers")
    return mono
