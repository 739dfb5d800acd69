"""Features of utterances: loading, normalization, frame policy, windows, batches.

The features of an utterance are a function of its own samples and of this module's settings.
On a CPU each utterance goes through the encoder by itself: there is no padding to pay for, and
nothing a neighbor could change. On a GPU utterances of like length share a batch that is planned
from the manifest alone, so a resumed run forms the same batches.

A recording longer than the window, or than the encoder can see at once, goes through window by
window, each with ``context`` on both sides of the frames it contributes. Windows start on the
encoder's frame grid, so the frame count is that of the whole recording. Waveform mean and variance
are always those of the whole utterance; the statistics inside a group-norm front end, and the
loudest band of Whisper's, are those of the window.

Axes: B batch, N samples, T frames, D width.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitone.corpus.audio import SAMPLE_RATE, Statistics
from unitone.corpus.utterance import Skipped, Utterance
from unitone.corpus.waveforms import LoadedWaveform, load_ahead, stream_waveform
from unitone.errors import ConfigError, CorpusError
from unitone.tokenizers.encoder import Encoder
from unitone.tokenizers.options import FrameConfig

NORMALIZE_EPS = 1e-5  # compat: fairseq normalizes with layer_norm over the waveform


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features of one utterance, to be read before the next one is asked for."""

    utterance: Utterance
    num_samples: int
    """At 16 kHz."""
    num_frames: int
    chunks: Iterator[Float[Tensor, "T D"]]
    """Consecutive stretches, float32 on the CPU or the GPU; one unless the recording is long."""

    def whole(self) -> Float[Tensor, "T D"]:
        """Return all frames in one tensor."""
        return torch.cat(list(self.chunks))


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """An encoder with the settings that decide what its features are."""

    encoder: Encoder
    layer: int
    frames: FrameConfig
    device: torch.device

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return SAMPLE_RATE / self.encoder.hop

    @property
    def window_samples(self) -> int:
        """Samples up to which an utterance goes through whole."""
        samples = round(self.frames.window * SAMPLE_RATE)
        return min(samples, self.encoder.longest or samples)

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames an utterance of ``num_samples`` has under the frame policy."""
        if self.frames.frame_policy == "exact":
            return self._whole_frames(num_samples)
        return -(-num_samples // self.encoder.hop)

    def batch(self, waveforms: Sequence[Float[np.ndarray, "_"]]) -> list[Float[Tensor, "_ D"]]:
        """Return the features of whole utterances; each must have at least one frame."""
        prepared = [self._prepare(waveform) for waveform in waveforms]
        lengths = torch.tensor([len(waveform) for waveform in prepared])
        padded = torch.zeros(len(prepared), int(lengths.max()))
        for row, waveform in zip(padded, prepared, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
        features = self._features(padded, lengths)
        return [
            self._fit(features[row, : self._whole_frames(len(prepared[row]))], len(waveform))
            for row, waveform in enumerate(waveforms)
        ]

    def windows(self, utterance: Utterance, known: Statistics) -> Iterator[Float[Tensor, "T D"]]:
        """Yield the features of a long recording, window by window, in bounded memory."""
        hop, field = self.encoder.hop, self.encoder.receptive_field
        left, total = self._padding(known.num_samples)
        num_frames = self._whole_frames(total)
        context = round(self.frames.context * SAMPLE_RATE / hop)
        core = self._whole_frames(self.window_samples) - 2 * context
        if core < 1:
            raise ConfigError(
                f"a window of {self.window_samples / SAMPLE_RATE:g} s is too short for twice the "
                f"context of {self.frames.context:g} s; lower --context"
            )
        samples = _Cursor(self._padded(utterance, known, left, total))
        for first in range(0, num_frames, core):
            last = min(first + core, num_frames)
            begin, end = max(first - context, 0), min(last + context, num_frames)
            waveform = samples.between(begin * hop, (end - 1) * hop + field)
            seen = self._features(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
            chunk = seen[0, first - begin : last - begin]
            yield self._fit(chunk, known.num_samples, done=first) if last == num_frames else chunk

    def too_short(self, item: LoadedWaveform) -> str | None:
        """Return why an utterance without a single frame is skipped, None if it has one."""
        if item.waveform is None or self.num_frames(len(item.waveform)) >= 1:
            return None
        num_samples, needed = len(item.waveform), self.encoder.receptive_field
        return (
            f"too short: {num_samples} samples ({1000 * num_samples / SAMPLE_RATE:.1f} ms) at "
            f"16 kHz; one frame of {self.encoder.name} needs {needed} "
            f"({1000 * needed / SAMPLE_RATE:.0f} ms)"
        )

    def _features(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.encoder.features(
                waveforms.to(self.device), lengths.to(self.device), layer=self.layer
            )

    def _whole_frames(self, num_samples: int) -> int:
        return max((num_samples - self.encoder.receptive_field) // self.encoder.hop + 1, 0)

    def _padding(self, num_samples: int) -> tuple[int, int]:
        """Return (zeros in front, samples in all) of the padded waveform."""
        hop, field = self.encoder.hop, self.encoder.receptive_field
        if self.frames.frame_policy == "pad_to_hop":
            return (field - hop) // 2, -(-num_samples // hop) * hop + field - hop
        return 0, max(num_samples, field)

    def _prepare(self, waveform: np.ndarray) -> np.ndarray:
        if self.encoder.normalize:
            wide = waveform.astype(np.float64)
            waveform = _normalized(waveform, float(wide.mean()), float(wide.var()))
        left, total = self._padding(len(waveform))
        return np.pad(waveform, (left, total - left - len(waveform)))

    def _fit(self, features: Tensor, num_samples: int, *, done: int = 0) -> Tensor:
        """Repeat the last frame until the count is the policy's; ``done`` frames came before."""
        missing = self.num_frames(num_samples) - done - len(features)
        if missing <= 0:
            return features
        return torch.cat([features, features[-1:].expand(missing, -1)])

    def _padded(
        self, utterance: Utterance, known: Statistics, left: int, total: int
    ) -> Iterator[np.ndarray]:
        yield np.zeros(left, np.float32)
        for block in stream_waveform(utterance):
            if self.encoder.normalize:
                block = _normalized(block, known.mean, known.variance)
            yield block
        yield np.zeros(total - left - known.num_samples, np.float32)


def extract(
    extractor: Extractor,
    utterances: Iterable[Utterance],
    *,
    workers: int,
    batch_seconds: float,
) -> Iterator[Features | Skipped]:
    """Yield the features of every utterance, or why it has none.

    Args:
        extractor: encoder and settings.
        utterances: what to read.
        workers: threads that decode audio ahead of the encoder; no result depends on it.
        batch_seconds: audio per batch, padding included; 0 = one utterance at a time, in order.
            Otherwise they come out in an order of their own.
    """
    loaded = load_ahead(utterances, longest=extractor.window_samples, workers=workers)
    with _threads_worth_having(extractor.encoder):
        if batch_seconds <= 0:
            for item in loaded:
                yield from _finish(extractor, [item])
        else:
            yield from _batched(extractor, list(loaded), batch_seconds)


@contextlib.contextmanager
def _threads_worth_having(encoder: Encoder) -> Iterator[None]:
    """Compute with one thread where there is no large matrix product to share.

    MFCC's operations last microseconds; on a busy machine two threads wait a time slice for each
    other at every one of them (measured: 61 against 650 times real time).
    """
    before = torch.get_num_threads()
    if encoder.num_layers == 0:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batched(
    extractor: Extractor, items: list[LoadedWaveform], batch_seconds: float
) -> Iterator[Features | Skipped]:
    short = [item for item in items if item.waveform is not None]
    yield from _finish(extractor, [item for item in items if item.waveform is None])
    lengths = [len(item.waveform) for item in short if item.waveform is not None]
    for rows in plan_batches(lengths, budget=round(batch_seconds * SAMPLE_RATE)):
        yield from _finish(extractor, [short[row] for row in rows])


def plan_batches(lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """Group rows of like length so that rows × longest stays within ``budget`` samples.

    A row longer than the budget is a batch by itself. The longest come first, so that a budget too
    large for the memory shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _finish(extractor: Extractor, items: list[LoadedWaveform]) -> Iterator[Features | Skipped]:
    """Encode the short ones of ``items`` as one batch; hand on the long ones and the failures."""
    short: list[LoadedWaveform] = []
    waveforms: list[np.ndarray] = []
    for item in items:
        reason = item.error or extractor.too_short(item)
        if reason is not None:
            yield item.utterance.skipped(reason)
        elif item.waveform is not None:
            short.append(item)
            waveforms.append(item.waveform)
        elif item.statistics is not None:
            yield Features(
                utterance=item.utterance,
                num_samples=item.statistics.num_samples,
                num_frames=extractor.num_frames(item.statistics.num_samples),
                chunks=_finite(extractor.windows(item.utterance, item.statistics), extractor),
            )
    if not short:
        return
    rows = _within_memory(extractor, waveforms)
    for item, waveform, features in zip(short, waveforms, rows, strict=True):
        if not bool(torch.isfinite(features).all()):
            yield item.utterance.skipped(f"{extractor.encoder.name} gives features of NaN")
            continue
        yield Features(
            utterance=item.utterance,
            num_samples=len(waveform),
            num_frames=len(features),
            chunks=iter([features]),
        )


def _finite(chunks: Iterator[Tensor], extractor: Extractor) -> Iterator[Tensor]:
    """Pass on the windows of a long recording as long as they hold numbers."""
    for chunk in chunks:
        if not bool(torch.isfinite(chunk).all()):
            raise CorpusError(f"{extractor.encoder.name} gives features of NaN")
        yield chunk


def _within_memory(extractor: Extractor, waveforms: list[np.ndarray]) -> list[Tensor]:
    """Encode a batch; where it doesn't fit the GPU, in halves."""
    try:
        return extractor.batch(waveforms)
    except torch.OutOfMemoryError:
        if len(waveforms) == 1:
            raise
    half = len(waveforms) // 2
    return [
        *_within_memory(extractor, waveforms[:half]),
        *_within_memory(extractor, waveforms[half:]),
    ]


class _Cursor:
    """Random access, moving forward only, into a stream of blocks."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._start = 0
        self._held = np.zeros(0, np.float32)

    def between(self, begin: int, end: int) -> np.ndarray:
        """Return samples ``begin`` to ``end``; what lies before ``begin`` is forgotten."""
        self._held = self._held[begin - self._start :]
        self._start = begin
        pieces = [self._held]
        count = len(self._held)
        while count < end - begin:
            pieces.append(next(self._blocks))
            count += len(pieces[-1])
        self._held = np.concatenate(pieces)
        return np.ascontiguousarray(self._held[: end - begin])


def _normalized(waveform: np.ndarray, mean: float, variance: float) -> np.ndarray:
    scale = 1 / np.sqrt(variance + NORMALIZE_EPS)
    return ((waveform - np.float32(mean)) * np.float32(scale)).astype(np.float32)
