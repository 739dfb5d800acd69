"""Recordings in, mono float32 out, 16 kHz or as asked: any format of libsndfile, rate and channels.

Reading is by blocks and resampling (soxr, high quality) keeps its state between them, so a file of
any length is read in bounded memory and gives the same samples however it is consumed.
"""

import io
import math
import numbers
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32

from unitone import files
from unitone.corpus import lengths
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
FULL_SCALE = {"uint8": 128.0, "int8": 128.0, "int16": 32_768.0, "int32": 2_147_483_648.0}
"""What integer samples are divided by, as libsndfile does."""
LOUDEST = 100.0
"""Floats above are integers in disguise; recordings, clipped ones too, stay near 1."""
MOST_CHANNELS = 64
FAINT, SHORT = -60.0, 0.2
"""Decibels of full scale, around the mean, and seconds, under which nobody makes out words."""

Samples = Any
"""What `waveform_of` takes: an array, a tensor or a list."""
Recording = Any
"""What `load` takes: a path, samples at 16 kHz, or a pair of samples and their rate."""


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
        if clip.path.is_dir():
            raise CorpusError(f"{clip.path}: a folder; name the audio files in it")
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


def waveform_of(
    samples: Samples, rate: int, *, wanted: int = SAMPLE_RATE
) -> Float32[np.ndarray, "N"]:
    """Return samples in memory as `read` returns a file's: mono, float32, at ``wanted`` Hz.

    Args:
        samples: floats, nominally in [-1, 1], or integers of 8, 16 or 32 bit in full scale; (N,),
            (channels, N) or (N, channels), whose mean is taken.
        rate: theirs, in Hz.
        wanted: in Hz.

    Raises:
        ValueError: there are none, some are not finite, or shape, scale or rate is no recording's.
    """
    if not isinstance(rate, numbers.Real) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"a sampling rate of {rate!r} Hz is not that of a recording")
    wave = _one_channel(_scaled(samples))
    if not np.isfinite(wave).all():
        raise ValueError("the waveform holds samples that are not finite numbers")
    peak = float(np.abs(wave).max())
    if peak > LOUDEST:
        raise ValueError(
            f"samples of up to {peak:g}: floats are in [-1, 1]; divide 16-bit samples by 32768, or "
            "give them as int16"
        )
    if rate == wanted:
        return wave
    import soxr

    resampled: np.ndarray = soxr.resample(wave, rate, wanted, quality="HQ")
    return resampled


def _scaled(samples: Samples) -> Float32[np.ndarray, "..."]:
    """Return an array or tensor as float32 in the scale of floats."""
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    if torch is not None and isinstance(samples, torch.Tensor):
        if samples.is_meta or samples.layout != torch.strided:
            raise ValueError(f"a tensor {samples.layout} on {samples.device}: give a dense one")
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    if np.ma.isMaskedArray(samples) and np.ma.getmaskarray(samples).any():
        raise ValueError("some samples are masked: cut them out, or fill them")
    array = np.asarray(samples)
    scale = FULL_SCALE.get(array.dtype.name)
    if scale is not None:
        middle = 128.0 if array.dtype == np.uint8 else 0.0
        return ((array.astype(np.float64) - middle) / scale).astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"samples of type {array.dtype}: give floats in [-1, 1], or integers of 8, 16 or 32 bit"
        )
    with np.errstate(over="ignore"):  # infinity is refused, as it is in a file
        return array.astype(np.float32)


def _one_channel(array: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "N"]:
    if array.ndim == 2 and array.size and min(array.shape) <= MOST_CHANNELS:
        channels = 0 if array.shape[0] <= array.shape[1] else 1
        several = array.shape[channels] > 1
        array = array.mean(axis=channels, dtype=np.float32) if several else array.reshape(-1)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"expected mono samples (N,) with N >= 1, or (channels, N), got shape {array.shape}"
        )
    return array


def load(recording: Recording, *, rate: int = SAMPLE_RATE) -> Float32[np.ndarray, "N"]:
    """Return the waveform of whatever a recording is given as: a path, samples, or a pair.

    Args:
        recording: an audio file; samples at 16 kHz, as `waveform_of` takes them; or a pair of
            samples and their rate, such as a `unitone.codecs.codec.Sound`.
        rate: wanted, in Hz.

    Raises:
        CorpusError: as `read`, for samples too.
    """
    if is_path(recording):
        return read(Clip(path=Path(recording)), rate=rate)
    pair = isinstance(recording, tuple) and len(recording) == 2
    samples, own = recording if pair else (recording, SAMPLE_RATE)
    try:
        waveform = waveform_of(samples, own, wanted=rate)
    except ValueError as error:
        raise CorpusError(f"samples: {error}") from error
    if not waveform.any():
        raise CorpusError("samples: every sample is zero")
    return waveform


def is_path(recording: Recording) -> bool:
    """Tell a path from samples."""
    return isinstance(recording, str | os.PathLike)


def write(path: Path, samples: Float[np.ndarray, "N"], rate: int, *, form: str) -> None:
    """Write a 16-bit file of libsndfile's ``form``, whole or not at all.

    Raises:
        OSError: there is no room, or the folder can't be written.
    """
    import soundfile

    made = io.BytesIO()  # libsndfile itself says of a full disk only that something is wrong
    soundfile.write(made, samples, rate, subtype="PCM_16", format=form)
    with files.replacing(path) as temporary:
        temporary.write_bytes(made.getvalue())


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


def header_seconds(clip: Clip) -> float:
    """Return how long ``clip`` is by the header of its file alone.

    Raises:
        CorpusError: the header can't be read.
    """
    import soundfile

    try:
        length = float(soundfile.info(clip.path).duration)
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        raise CorpusError(f"{clip.path}: not readable as audio ({error})") from error
    rest = max(length - clip.start, 0.0)
    return rest if clip.duration is None else min(clip.duration, rest)


def faintness(known: Statistics) -> str | None:
    """Return why no words can be made out of 16 kHz sound; None where they may be.

    >>> faintness(Statistics(num_samples=1_600, mean=0.0, variance=0.01))
    '0.10 s is too short for words'
    >>> faintness(Statistics(num_samples=16_000, mean=0.5, variance=1e-9))
    '-90 dB of full scale is next to silence'
    """
    if known.num_samples < SHORT * SAMPLE_RATE:
        return f"{known.num_samples / SAMPLE_RATE:.2f} s is too short for words"
    level = 10 * math.log10(max(known.variance, 1e-20))
    return f"{level:.0f} dB of full scale is next to silence" if level < FAINT else None


def _resampled(
    clip: Clip, file: "soundfile.SoundFile", *, wanted: int
) -> Iterator[Float[np.ndarray, "N"]]:
    import soxr

    rate = file.samplerate
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise CorpusError(f"{clip.path}: a sampling rate of {rate} Hz is not that of a recording")
    if file.format in ("MP3", "MPEG"):
        _check_mpeg(clip, file)
    _check_sample_bytes(clip, file)
    reason = lengths.broken(clip.path, file.format, frames=file.frames, log=file.extra_info)
    if reason is not None:
        raise CorpusError(f"{clip.path}: {reason}")
    remaining = _seek(clip, file)
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
    held = lengths.num_samples(clip.path)
    if held - file.frames > max(SLACK * file.samplerate, 4 * lengths.LONGEST_FRAME):
        raise CorpusError(
            f"{clip.path}: its header says {file.frames / file.samplerate:.2f} s, its frames hold "
            f"{held / file.samplerate:.2f} s; write it anew, e.g. `ffmpeg -i FILE -c copy NEW.mp3`"
        )


def _check_sample_bytes(clip: Clip, file: "soundfile.SoundFile") -> None:
    """Refuse a file whose header says another length than it has; libsndfile believes the less."""
    known = lengths.sample_bytes(clip.path)
    if known is None or file.frames == 0 or known.said == 0:
        return
    per_second = min(known.said, known.held) / file.frames * file.samplerate
    said, held = known.said / per_second, known.held / per_second
    if abs(said - held) > SLACK:
        raise CorpusError(
            f"{clip.path}: its header says {said:.2f} s, the file holds {held:.2f} s"
            + (
                ": it is cut off"
                if held < said
                else "; write it anew, e.g. with `sox --ignore-length`"
            )
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
