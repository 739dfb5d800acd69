"""The network of the ASR judge: log-mel frames to characters by CTC, greedily.

Features are log-mel bands, each with mean 0 and variance 1 over the utterance, so level and channel
don't count. Two strided convolutions make a frame of 40 ms out of four, ConvNeXt blocks follow, and
each of their frames gives ``PER_FRAME`` outputs: fast speech has more than 25 characters a second,
counting the blanks that CTC needs between equal ones (Graves et al. 2006).

There is no attention, on purpose: an output depends on 0.8 s to either side. A judge that sees the
whole sentence learns the sentences of its training data, and then recognizes them in any noise.

Axes: B batch, N samples, T frames of 10 ms, M mel bands, L frames of 40 ms, P outputs, C classes
(0 is the blank), S characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from unitone.corpus.audio import SAMPLE_RATE
from unitone.errors import ConfigError
from unitone.nn.convnext import ConvNextBlock
from unitone.nn.mel import mel_filters
from unitone.train.network import Loss

WINDOW, HOP = 512, 160
"""Samples: 32 ms and 10 ms."""
SUBSAMPLING = 4
"""Frames of features for one of the transformer."""
PER_FRAME = 2
"""Outputs for one frame of the transformer."""
BLANK = 0
RANGE = 10.0
"""Nepers of power between the loudest and the quietest that counts, 43 dB: silence is one, whether
digital, quantized or synthesized."""
_FLOOR = 1e-10  # of a band's power
STEM_KERNEL = 5  # of the convolutions


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    characters: str
    """What can be written; character i is class i + 1."""
    num_mels: int = 40
    """Mel bands; few, so that they show formants and not harmonics."""
    dim: int = 192
    """Width of the network."""
    blocks: int = 6
    """Blocks after the strided convolutions."""
    expansion: int = 3
    """Width inside a block, in units of ``dim``."""
    kernel: int = 7
    """Frames of 40 ms in a block's convolution; an odd number."""
    dropout: float = 0.0
    """Of what a block adds."""

    def __post_init__(self) -> None:
        if not self.characters or len(set(self.characters)) < len(self.characters):
            raise ConfigError(f"characters must be distinct, and some: {self.characters!r}")
        if min(self.num_mels, self.dim, self.blocks, self.expansion, self.kernel) < 1:
            raise ConfigError("every width and count of the judge must be at least 1")

    def encode(self, text: str) -> Int[np.ndarray, "S"]:
        """Return the classes of a text; characters that can't be written are left out."""
        classes = {character: index + 1 for index, character in enumerate(self.characters)}
        return np.array([classes[one] for one in text if one in classes], np.int64)


@dataclass(frozen=True, kw_only=True)
class SpeechBatch:
    """Features of utterances and their texts; padding is zero."""

    features: Float[Tensor, "B T M"]
    lengths: Int[Tensor, "B"]
    """Frames of each."""
    targets: Int[Tensor, "B S"]
    target_lengths: Int[Tensor, "B"]
    padding: float
    """Share of the frames that is padding."""


def log_mel(wave: Float[np.ndarray, "N"], num_mels: int) -> Float32[np.ndarray, "T M"]:
    """Return log-mel powers of every window that begins within ``wave``; at least one."""
    num_frames = max(-(-len(wave) // HOP), 1)
    samples = np.zeros((num_frames - 1) * HOP + WINDOW, np.float32)
    samples[: len(wave)] = wave
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    powers = np.square(np.abs(np.fft.rfft(frames * _window()))).astype(np.float32)
    found: np.ndarray = np.log(np.maximum(powers @ _filters(num_mels), _FLOOR))
    return found


def normalized(features: Float32[np.ndarray, "T M"]) -> Float32[np.ndarray, "T M"]:
    """Cut off what is `RANGE` below the loudest; give every band mean 0 and variance 1.

    A band that never changes becomes zero.
    """
    limited = np.maximum(features, features.max() - RANGE)
    centered = limited - limited.mean(axis=0)
    found: np.ndarray = centered / (centered.std(axis=0) + 1e-2)
    return found


@lru_cache(maxsize=1)
def _window() -> Float32[np.ndarray, "W"]:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)  # periodic


@lru_cache(maxsize=4)
def _filters(num_mels: int) -> Float32[np.ndarray, "F M"]:
    """Return triangles from 0 Hz to Nyquist, equally wide on HTK's mel scale."""
    filters = mel_filters(fft=WINDOW, num_mels=num_mels, sample_rate=SAMPLE_RATE, scale="htk")
    return (filters / WINDOW).astype(np.float32)


def padded(rows: Sequence[Float32[np.ndarray, "_ M"]]) -> tuple[Tensor, Tensor]:
    """Return features (B, T, M), T a multiple of the subsampling, and lengths (B,)."""
    lengths = np.array([len(row) for row in rows])
    longest = -(-int(lengths.max()) // SUBSAMPLING) * SUBSAMPLING
    features = np.zeros((len(rows), longest, rows[0].shape[1]), np.float32)
    for place, row in enumerate(rows):
        features[place, : len(row)] = row
    return torch.from_numpy(features), torch.from_numpy(lengths)


def outputs_of(frames: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Return the number of outputs of so many frames of features."""
    return (frames + SUBSAMPLING - 1) // SUBSAMPLING * PER_FRAME


def outputs_needed(classes: Int[np.ndarray, "S"]) -> int:
    """Return the fewest outputs in which CTC can write these characters."""
    return len(classes) + int(np.count_nonzero(classes[1:] == classes[:-1]))


def collapse(classes: Int[np.ndarray, "P"], characters: str) -> str:
    """Read a path of CTC: repetitions are one character, blanks are none.

    >>> collapse(np.array([1, 1, 0, 1, 2, 2, 0]), "ab")
    'aab'
    """
    changed = np.concatenate([[True], classes[1:] != classes[:-1]])[: len(classes)]
    return "".join(characters[one - 1] for one in classes[changed & (classes != BLANK)])


class Network(nn.Module):
    """Features to logits of characters; a row doesn't depend on the others of its batch."""

    def __init__(self, config: NetworkConfig, *, generator: Generator) -> None:
        super().__init__()
        self.config = config
        shape, stride, edge = (1, STEM_KERNEL), (1, 2), (0, STEM_KERNEL // 2)
        self.first = nn.Conv2d(config.num_mels, config.dim, shape, stride, edge)
        self.second = nn.Conv2d(config.dim, config.dim, shape, stride, edge)
        self.blocks = nn.ModuleList(
            ConvNextBlock(
                config.dim, kernel=config.kernel, expansion=config.expansion, dropout=config.dropout
            )
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, PER_FRAME * (len(config.characters) + 1))
        self._initialize(generator)

    @torch.no_grad()
    def _initialize(self, generator: Generator) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
                if name.endswith("down.weight"):  # so that the sum over the blocks doesn't grow
                    parameter.mul_(self.config.blocks**-0.5)
        self.head.weight.mul_(0.1)

    def forward(
        self, features: Float[Tensor, "B T M"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B P C"]:
        """Return the logits of every output; ``outputs_of(lengths)`` of them have a meaning."""
        x = features.transpose(1, 2)[:, :, None]  # (B, M, 1, T)
        for convolution in (self.first, self.second):
            lengths = (lengths + 1) // 2
            x = functional.gelu(convolution(x))
            x = x * _valid(lengths, x.shape[-1])[:, None, None]
        states = x[:, :, 0].transpose(1, 2)
        valid = _valid(lengths, states.shape[1])
        for block in self.blocks:
            states = block(states, valid)
        logits: Tensor = self.head(self.norm(states)).unflatten(-1, (PER_FRAME, -1)).flatten(1, 2)
        return logits

    if TYPE_CHECKING:
        __call__ = forward


class CtcObjective(nn.Module):
    """The trainable module: minus the log-likelihood of the texts, by character."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.blocks = network.blocks

    def forward(self, batch: SpeechBatch) -> Loss:
        """Return the loss, summed over characters."""
        logits = self.network(batch.features, batch.lengths)
        total = functional.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            batch.targets,
            outputs_of(batch.lengths),
            batch.target_lengths,
            blank=BLANK,
            reduction="sum",
            zero_infinity=True,  # augmentation may have made a recording too short for its text
        )
        return Loss(total=total, count=batch.target_lengths.sum(), parts={})


def _valid(lengths: Int[Tensor, "B"], longest: int) -> Bool[Tensor, "B L"]:
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
