"""What precedes the blocks of HuBERT and WavLM: convolutions, projection and positions.

The convolutional front end takes one utterance at a time, without padding.

Seven convolutions of kernels 10 3 3 3 3 2 2 and strides 5 2 2 2 2 2 2, each followed by GELU
(wav2vec 2.0, arXiv 2006.11477, §2). Every convolution is a matrix product over rows that lie in
memory already: frames are rows, channels are columns.

Group norm after the first convolution takes its statistics over the whole utterance. As that
convolution is linear in a window x of ten samples, its mean and variance over time are
w . E[x] and w^T Cov[x] w: they come from ten sums of the waveform, and the norm folds into the
convolution's weights. What remains is local in time, so that both styles of front end can work
through the utterance in tiles that stay in the cache.

Axes: N samples, T frames of one utterance, M of all, C channels, D width.
"""

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unitone.nn.linear import DTYPES, LayerNorm, Linear, Precision
from unitone.tokenizers.encoders._architecture import Architecture
from unitone.tokenizers.encoders._weights import Checkpoint

_TILE = 128  # frames of output computed at a time on a CPU


class Stem:
    """Front end, projection and position: from waveforms to the input of the blocks."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        architecture: Architecture,
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        weights = checkpoint.weights
        self.front_end = FrontEnd(checkpoint, architecture, precision=precision, device=device)
        self.norm = LayerNorm(
            weights, "projection.norm", epsilon=architecture.epsilon, device=device
        )
        self.projection = (
            Linear(
                weights["projection.weight"], weights["projection.bias"],
                precision=precision, device=device,
            )
            if architecture.projects
            else None
        )  # fmt: skip
        self.position = PositionConvolution(
            checkpoint, architecture, precision=precision, device=device
        )

    def __call__(
        self, waveforms: Sequence[Float[Tensor, "_"]]
    ) -> tuple[Float[Tensor, "M D"], list[int]]:
        """Return the frames of all utterances, packed, float32, and how many each has."""
        frames = [self.front_end(waveform) for waveform in waveforms]
        rows = self.norm(torch.cat(frames))
        rows = rows if self.projection is None else self.projection(rows)
        spans = [len(one) for one in frames]
        return self.position(rows.float(), spans), spans


class FrontEnd:
    """Seven convolutions; the result has ``(N - receptive_field) // hop + 1`` frames."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        architecture: Architecture,
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        weights = checkpoint.weights
        self.architecture = architecture
        self.precision: Precision = precision
        self.device = device
        self.first = weights["conv.0.weight"][:, 0].to(device)  # (C, kernel)
        self.gain = weights["conv.0.norm.weight"].to(device)
        self.offset = weights["conv.0.norm.bias"].to(device)
        self.convs = [
            Linear(
                rearrange(weights[f"conv.{i}.weight"], "out c kernel -> out (kernel c)"),
                weights.get(f"conv.{i}.bias"),
                precision=precision,
                device=device,
            )
            for i in range(len(architecture.kernels))
        ]
        self.norms = [
            LayerNorm(weights, f"conv.{i}.norm", epsilon=1e-5, device=device)
            if architecture.front_norm == "layer"
            else None
            for i in range(len(architecture.kernels))
        ]

    def __call__(self, waveform: Float[Tensor, "N"]) -> Float[Tensor, "T C"]:
        """Return the frames of one utterance, in the encoder's precision."""
        a = self.architecture
        num_frames = (len(waveform) - a.receptive_field) // a.hop + 1
        first = self._folded(waveform) if a.front_norm == "group" else self.convs[0]
        tile = _TILE if self.device.type == "cpu" else num_frames
        frames = []
        for start in range(0, num_frames, tile):
            count = min(tile, num_frames - start)
            samples = waveform[start * a.hop : (start + count - 1) * a.hop + a.receptive_field]
            frames.append(self._tile(samples, first))
        return torch.cat(frames)

    def _tile(self, samples: Float[Tensor, "N"], first: Linear) -> Float[Tensor, "T C"]:
        rows = samples.unsqueeze(1)
        a = self.architecture
        for conv, norm, kernel, stride in zip(
            [first, *self.convs[1:]], self.norms, a.kernels, a.strides, strict=True
        ):
            rows = windows(rows, kernel=kernel, stride=stride)
            rows = conv(rows, gelu=True) if norm is None else F.gelu(norm(conv(rows)))
        return rows

    def _folded(self, waveform: Float[Tensor, "N"]) -> Linear:
        """Return the first convolution with this utterance's group norm folded in.

        A bias of the convolution would cancel, as the norm takes the mean away.
        """
        a = self.architecture
        rows = waveform.unfold(0, a.kernels[0], a.strides[0]).double()
        mean = rows.mean(dim=0)
        centered = rows - mean
        covariance = centered.T @ centered / len(rows)
        kernel = self.first.double()
        variance = ((kernel @ covariance) * kernel).sum(dim=1)
        scale = self.gain * (variance + 1e-5).rsqrt()
        offset = self.offset - scale * (kernel @ mean)
        weight, bias = (kernel * scale[:, None]).float(), offset.float()
        return Linear(weight, bias, precision=self.precision, device=self.device, once=True)


def windows(
    rows: Float[Tensor, "N C"], *, kernel: int, stride: int
) -> Float[Tensor, "T {kernel}*C"]:
    """Return the rows that a convolution sees at each step, side by side, as a view."""
    width = rows.shape[1]
    count = (len(rows) - kernel) // stride + 1
    return torch.as_strided(
        rows, (count, kernel * width), (stride * width, 1), rows.storage_offset()
    )


class PositionConvolution:
    """x + GELU(conv(x)): a grouped convolution over 128 frames (wav2vec 2.0, §2)."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        architecture: Architecture,
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        # On a CPU grouped convolutions are fast in float32, not in bfloat16, and channels last.
        dtype = torch.float32 if device.type == "cpu" else DTYPES[precision]
        weight = checkpoint.weights["position.weight"].unsqueeze(2).to(device, dtype)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = checkpoint.weights["position.bias"].to(device, dtype)
        self.input = _input_norm(checkpoint.weights, device) if architecture.position_norm else None
        self.groups = architecture.position_groups
        self.kernel = architecture.position_kernel

    def __call__(self, rows: Float[Tensor, "M D"], spans: Sequence[int]) -> Float[Tensor, "M D"]:
        """Return ``rows`` plus their position embedding, float32."""
        return torch.cat([self._one(part) for part in rows.split(list(spans))])

    def _one(self, rows: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        given = rows if self.input is None else rows * self.input[0] + self.input[1]
        columns = given.T[None, :, None].to(self.weight.dtype)  # (1, D, 1, T), channels last
        position = F.conv2d(
            columns, self.weight, self.bias, padding=(0, self.kernel // 2), groups=self.groups
        )
        return rows + F.gelu(position[0, :, 0, : len(rows)].T)


def _input_norm(
    weights: Mapping[str, Tensor], device: torch.device
) -> tuple[Float[Tensor, "D"], Float[Tensor, "D"]]:
    """Return the batch norm before the convolution, with the statistics of training, as s x + t."""
    weight, bias, mean, variance = (
        weights[f"position.input.{name}"]
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / (variance + 1e-5).sqrt()
    return scale.to(device), (bias - mean * scale).to(device)
