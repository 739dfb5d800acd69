"""The convolutional front end: waveform to frames, one utterance at a time, without padding.

Seven convolutions of kernels 10 3 3 3 3 2 2 and strides 5 2 2 2 2 2 2, each followed by GELU
(wav2vec 2.0, arXiv 2006.11477, §2). Every convolution is a matrix product over rows that lie in
memory already: frames are rows, channels are columns.

Group norm after the first convolution takes its statistics over the whole utterance. As that
convolution is linear in a window x of ten samples, its mean and variance over time are
w . E[x] and w^T Cov[x] w: they come from ten sums of the waveform, and the norm folds into the
convolution's weights. What remains is local in time, so that both styles of front end can work
through the utterance in tiles that stay in the cache.

Axes: N samples, T frames, C channels.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unitone.nn.linear import LayerNorm, Linear, Precision
from unitone.tokenizers.encoders._architecture import Architecture
from unitone.tokenizers.encoders._weights import Checkpoint

_TILE = 128  # frames of output computed at a time on a CPU


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
