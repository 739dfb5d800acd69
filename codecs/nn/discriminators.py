"""What tells real waveforms from made ones, and the losses of the two sides.

Kong et al. 2020 (HiFi-GAN), arXiv 2010.05646: convolutions over the waveform folded at periods of
2, 3, 5, 7 and 11 samples. Kumar et al. 2023 (DAC), arXiv 2306.06546: convolutions over complex
short-time spectra, a stack for each of five bands. Least-squares losses and feature matching.
``width`` scales all channels; 1 is the papers' size.

Axes: B batch, N samples.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from unitone.codecs.nn.spectrum import Framing, spectrum

PERIODS = (2, 3, 5, 7, 11)
WINDOWS = (2048, 1024, 512)
BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Edges, as shares of the bins."""
SLOPE = 0.1


@dataclass(frozen=True, kw_only=True)
class DiscriminatorOutput:
    """For a batch."""

    score: Tensor
    """(B, 1, …): 1 = real, 0 = made, by place."""
    features: tuple[Tensor, ...]
    """Activations of the layers before, (B, C, …)."""


class Discriminators(nn.Module):
    """All of them; the waveforms are brought to zero mean and a peak of 0.8 first."""

    def __init__(self, *, width: float, generator: Generator) -> None:
        super().__init__()
        periods = [_Period(period, width=width) for period in PERIODS]
        # compat: "judges" is in the names of the weights in checkpoints
        self.judges = nn.ModuleList([*periods, *(_Spectral(w, width=width) for w in WINDOWS)])
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.trunc_normal_(part.weight, std=0.02, generator=generator)
                assert part.bias is not None
                nn.init.zeros_(part.bias)
        for part in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
            weight_norm(part)

    def forward(self, waves: Float[Tensor, "B N"]) -> list[DiscriminatorOutput]:
        """Return the output of each discriminator."""
        waves = waves - waves.mean(dim=-1, keepdim=True)
        waves = 0.8 * waves / (waves.abs().amax(dim=-1, keepdim=True) + 1e-9)
        return [one(waves) for one in self.judges]

    if TYPE_CHECKING:
        __call__ = forward


class _Period(nn.Module):
    def __init__(self, period: int, *, width: float) -> None:
        super().__init__()
        self.period = period
        channels = [1, *(_scaled(c, width) for c in (32, 128, 512, 1024, 1024))]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (5, 1), (3 if index < 4 else 1, 1), padding=(2, 0))
            for index, (a, b) in enumerate(itertools.pairwise(channels))
        )
        self.score = nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, waves: Float[Tensor, "B N"]) -> DiscriminatorOutput:
        x = functional.pad(waves, (0, -waves.shape[1] % self.period))
        x = rearrange(x, "b (t p) -> b 1 t p", p=self.period)
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return DiscriminatorOutput(score=self.score(x), features=tuple(features))


class _Spectral(nn.Module):
    def __init__(self, window: int, *, width: float) -> None:
        super().__init__()
        self.framing = Framing(fft=window, hop=window // 4, left=0)
        bins = window // 2 + 1
        self.edges = [round(edge * bins) for edge in BANDS]
        channels = _scaled(32, width)
        shapes = [((3, 9), 1)] + [((3, 9), 2)] * 3 + [((3, 3), 1)]
        self.bands = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(
                    2 if index == 0 else channels,
                    channels,
                    kernel,
                    (1, stride),
                    padding=(kernel[0] // 2, kernel[1] // 2),
                )
                for index, (kernel, stride) in enumerate(shapes)
            )
            for _ in BANDS[1:]
        )
        self.score = nn.Conv2d(channels, 1, (3, 3), padding=(1, 1))

    def forward(self, waves: Float[Tensor, "B N"]) -> DiscriminatorOutput:
        half = self.framing.fft // 2
        spectra = torch.view_as_real(spectrum(functional.pad(waves, (half, half)), self.framing))
        spectra = rearrange(spectra, "b t f c -> b c t f")  # c: real, imaginary
        ends, features = [], []
        for layers, low, high in zip(self.bands, self.edges[:-1], self.edges[1:], strict=True):
            x = spectra[..., low:high]
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                x = functional.leaky_relu(layer(x), SLOPE)
                features.append(x)
            ends.append(x)
        return DiscriminatorOutput(
            score=self.score(torch.cat(ends, dim=-1)), features=tuple(features)
        )


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def discriminator_loss(
    real: Sequence[DiscriminatorOutput], made: Sequence[DiscriminatorOutput]
) -> Float[Tensor, "B"]:
    """Return sum over discriminators of mean (1 - D(real))^2 + mean D(made)^2, per row."""
    parts = [
        _row_mean((1 - ours.score).square()) + _row_mean(theirs.score.square())
        for ours, theirs in zip(real, made, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


def generator_loss(made: Sequence[DiscriminatorOutput]) -> Float[Tensor, "B"]:
    """Return sum over discriminators of mean (1 - D(made))^2, per row."""
    return torch.stack([_row_mean((1 - one.score).square()) for one in made]).sum(dim=0)


def feature_loss(
    real: Sequence[DiscriminatorOutput], made: Sequence[DiscriminatorOutput]
) -> Float[Tensor, "B"]:
    """Return sum over discriminators and layers of the mean distance of activations, per row."""
    parts = [
        _row_mean((ours.detach() - theirs).abs())
        for a, b in zip(real, made, strict=True)
        for ours, theirs in zip(a.features, b.features, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


def _row_mean(values: Tensor) -> Float[Tensor, "B"]:
    return values.float().flatten(1).mean(dim=1)
