"""The encoder of Whisper (Radford et al. 2022, arXiv 2212.04356): log-mel bands, two convolutions.

| name                     | blocks | width | feed-forward | heads | mel bands |
| ------------------------ | ------ | ----- | ------------ | ----- | --------- |
| whisper-tiny             | 4      | 384   | 1536         | 6     | 80        |
| whisper-base             | 6      | 512   | 2048         | 8     | 80        |
| whisper-small            | 12     | 768   | 3072         | 12    | 80        |
| whisper-medium           | 24     | 1024  | 4096         | 16    | 80        |
| whisper-large, -large-v2 | 32     | 1280  | 5120         | 20    | 80        |
| whisper-large-v3, -turbo | 32     | 1280  | 5120         | 20    | 128       |

Blocks are pre-LN, keys have no bias, positions are a table of 1,500 rows: 30 seconds at 50 Hz, the
most that can be seen at once. Frame t has its center at sample 320 t.

The original pads every utterance with silence to 30 s; here one second of it follows (`SILENCE`).
How near the frames of tiny.en then are to those at 30 s, mean cosine over 24 recordings:

| silence, s | 0     | 0.1   | 0.5   | 1     | 2     | 5     | 10    |
| ---------- | ----- | ----- | ----- | ----- | ----- | ----- | ----- |
| layer 1    | 0.997 | 0.998 | 0.998 | 0.999 | 0.999 | 0.999 | 1.000 |
| layer 4    | 0.966 | 0.972 | 0.977 | 0.980 | 0.983 | 0.988 | 0.992 |

Axes: N samples, F spectral frames (100 Hz), T frames (50 Hz), M of all utterances, C mel bands.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unitone.errors import CheckpointError
from unitone.nn.linear import Linear, Precision
from unitone.nn.mel import mel_filters
from unitone.tokenizers.encoders._architecture import Sizes, block_shapes, require
from unitone.tokenizers.encoders._encoder import SpeechEncoder
from unitone.tokenizers.encoders._frontend import windows
from unitone.tokenizers.encoders._transformer import self_attentions
from unitone.tokenizers.encoders._weights import Checkpoint, listing

_ENGLISH = ("tiny", "base", "small", "medium")
PUBLISHED = {
    f"whisper-{size}": f"openai/whisper-{size}"
    for size in (
        *_ENGLISH,
        *(f"{size}.en" for size in _ENGLISH),
        *("large", "large-v2", "large-v3", "large-v3-turbo"),
    )
}
"""Names on the command line and the hub repositories they stand for."""


FFT, MEL_HOP = 400, 160
SAMPLE_RATE = 16_000
SILENCE = SAMPLE_RATE
"""Samples of silence after an utterance."""

_SIZES = {
    (4, 384): "tiny", (6, 512): "base", (12, 768): "small", (24, 1024): "medium",
    (32, 1280): "large",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WhisperSizes(Sizes):
    num_mels: int
    num_positions: int
    """Most frames at once."""

    @property
    def hop(self) -> int:
        """Two spectral frames."""
        return 2 * MEL_HOP

    @property
    def receptive_field(self) -> int:
        """A whole hop."""
        return self.hop

    @property
    def longest(self) -> int:
        """30 s."""
        return self.num_positions * self.hop


def recognizes(names: Collection[str]) -> bool:
    """Say whether weights of these canonical names are a Whisper: with a table of positions."""
    return "positions.weight" in names


def describe(checkpoint: Checkpoint) -> tuple[str, WhisperSizes]:
    """Return the name of the size and the sizes; ``.en`` and v2 show in no weight of the encoder.

    Raises:
        CheckpointError: weights are missing, left over or of the wrong shape; all are named.
    """
    shapes = {name: tuple(weight.shape) for name, weight in checkpoint.weights.items()}
    try:
        num_mels = shapes["conv.0.weight"][1]
        num_positions, dim = shapes["positions.weight"]
        ffn_dim = shapes["block.0.up.weight"][0]
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.where} has not all weights of a Whisper encoder, first of all {error}; "
            f"it has {listing(shapes)}"
        ) from None
    num_heads = checkpoint.hints.num_heads or max(1, dim // 64)
    if dim % num_heads:
        raise CheckpointError(
            f"{checkpoint.where}: width {dim} does not divide by {num_heads} heads"
        )
    sizes = WhisperSizes(
        dim=dim,
        ffn_dim=ffn_dim,
        num_layers=len({name.split(".")[1] for name in shapes if name.startswith("block.")}),
        num_heads=num_heads,
        pre_norm=True,
        epsilon=1e-5,
        normalize=False,
        num_mels=num_mels,
        num_positions=num_positions,
    )
    require(checkpoint, expected_shapes(sizes))
    known = _SIZES.get((sizes.num_layers, dim), f"{sizes.num_layers}x{dim}")
    return f"whisper-{known}" + ("-v3" if known == "large" and num_mels == 128 else ""), sizes


def expected_shapes(sizes: WhisperSizes) -> dict[str, tuple[int, ...]]:
    """Return every weight that an encoder of these sizes has, under its canonical name."""
    shapes = block_shapes(sizes)
    for block in range(sizes.num_layers):
        del shapes[f"block.{block}.k.bias"]
    return shapes | {
        "conv.0.weight": (sizes.dim, sizes.num_mels, 3),
        "conv.0.bias": (sizes.dim,),
        "conv.1.weight": (sizes.dim, sizes.dim, 3),
        "conv.1.bias": (sizes.dim,),
        "positions.weight": (sizes.num_positions, sizes.dim),
    }


class LogMel:
    """Whisper's bands: log10 of power, at most 8 below the loudest, then (x + 4) / 4."""

    def __init__(self, num_mels: int, *, device: torch.device) -> None:
        filters = mel_filters(
            fft=FFT, num_mels=num_mels, sample_rate=SAMPLE_RATE, scale="slaney", equal_area=True
        )
        self.filters = torch.from_numpy(filters).float().to(device)  # (201, C)
        self.window = torch.hann_window(FFT, device=device)

    def __call__(self, waveform: Float[Tensor, "N"]) -> Float[Tensor, "F C"]:
        """Return N / 160 frames, the centers of whose windows are at 160 f, edges mirrored."""
        mirrored = F.pad(waveform[None], (FFT // 2, FFT // 2), mode="reflect")[0]
        frames = mirrored.unfold(0, FFT, MEL_HOP)[:-1] * self.window
        power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(dim=-1)
        bands = (power @ self.filters).clamp(min=1e-10).log10()
        return (bands.maximum(bands.max() - 8.0) + 4.0) / 4.0


class Stem:
    """Bands, two convolutions of three frames each, the second over every other, and positions."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        sizes: WhisperSizes,
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        weights = checkpoint.weights
        self.sizes = sizes
        self.bands = LogMel(sizes.num_mels, device=device)
        self.convs = [
            Linear(
                rearrange(weights[f"conv.{i}.weight"], "out c kernel -> out (kernel c)"),
                weights[f"conv.{i}.bias"],
                precision=precision,
                device=device,
            )
            for i in range(2)
        ]
        self.positions = weights["positions.weight"].to(device)

    def __call__(
        self, waveforms: Sequence[Float[Tensor, "_"]]
    ) -> tuple[Float[Tensor, "M D"], list[int]]:
        """Return the frames of all utterances and their silence, packed, and how many."""
        frames = [self._one(waveform) for waveform in waveforms]
        return torch.cat(frames), [len(one) for one in frames]

    def _one(self, waveform: Float[Tensor, "N"]) -> Float[Tensor, "T D"]:
        hop, longest = self.sizes.hop, self.sizes.longest
        total = min(-(-(len(waveform) + SILENCE) // hop) * hop, longest)
        rows = self.bands(F.pad(waveform, (0, total - len(waveform))))
        for conv, stride in zip(self.convs, (1, 2), strict=True):
            rows = conv(windows(F.pad(rows, (0, 0, 1, 1)), kernel=3, stride=stride), gelu=True)
        return rows.float() + self.positions[: len(rows)]


def build(
    checkpoint: Checkpoint,
    architecture: WhisperSizes,
    num_blocks: int,
    *,
    name: str,
    precision: Precision,
    device: torch.device,
) -> SpeechEncoder:
    """Build the first ``num_blocks`` blocks of a Whisper."""
    stem = Stem(checkpoint, architecture, precision=precision, device=device)
    parts = self_attentions(
        checkpoint, architecture, num_blocks, precision=precision, device=device
    )
    return SpeechEncoder(
        checkpoint, architecture, stem, parts, name=name, precision=precision, device=device
    )
