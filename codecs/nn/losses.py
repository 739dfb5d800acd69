"""What the unit decoder is trained on: the trainable modules of `unitone.train.trainer`.

One for the ``mel`` head, two for ``istft``: the discriminators step first, then the generator on
the same batch and waveforms, as in HiFi-GAN and DAC. Every loss is a sum over frames, so that a
step of several batches is the same as one of a large batch.

Axes: B batch, T frames of units, N samples, F bins.
"""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from unitone.codecs.nn.crops import CropBatch
from unitone.codecs.nn.discriminators import (
    Discriminators,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from unitone.codecs.nn.network import UnitNetwork
from unitone.codecs.nn.spectrum import FLOOR, Framing, log_mel, mel_filters, spectrum, trim
from unitone.codecs.options import LossConfig
from unitone.train.network import Loss

NUM_MELS = 80
SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""Windows in samples and their mel bands: DAC's multi-scale mel loss."""


class MelRegression(nn.Module):
    """Of the ``mel`` head: mean distance of log magnitudes, in mel and linear bands."""

    def __init__(self, network: UnitNetwork, weights: LossConfig) -> None:
        super().__init__()
        self.network = network
        self.weights = weights

    def forward(self, batch: CropBatch) -> Loss:
        """Return the loss, summed over valid frames of units."""
        network, weights = self.network, self.weights
        logs = network.log_magnitudes(batch.units, batch.speakers, batch.valid)
        with torch.autocast(logs.device.type, enabled=False):
            real = spectrum(batch.waves, network.framing).abs()
            filters = mel_filters(
                fft=network.framing.fft,
                num_mels=NUM_MELS,
                sample_rate=network.config.sample_rate,
            ).to(real)
            mel = (log_mel(logs.exp(), filters) - log_mel(real, filters)).abs().mean(dim=-1)
            linear = (logs - real.clamp(min=FLOOR).log()).abs().mean(dim=-1)
            valid = batch.valid.repeat_interleave(network.config.frames_per_unit, dim=1)
            sums = {
                "mel": (mel * valid).sum() / network.config.frames_per_unit,
                "linear": (linear * valid).sum() / network.config.frames_per_unit,
            }
            duration, runs = duration_loss(network, batch)
            total = sums["mel"] + weights.linear * sums["linear"] + weights.duration * duration
        frames = batch.valid.sum()
        parts = {name: (value.detach(), frames) for name, value in sums.items()}
        return Loss(
            total=total, count=frames, parts=parts | {"duration": (duration.detach(), runs)}
        )


class GeneratorOutput:
    """What the generator makes of a batch, once a step for both networks of a GAN.

    Its weights change only after the last of the two has used it. Of a step of several batches only
    the last is kept, since memory is planned for the activations of one; the others are made twice.
    """

    def __init__(self, network: UnitNetwork) -> None:
        self.network = network
        self._trained = [p for p in network.parameters() if p.requires_grad]
        self._kept: tuple[CropBatch, Tensor] | None = None

    def for_discriminators(self, batch: CropBatch) -> Float[Tensor, "B N"]:
        """Return the waveforms, detached; keep them with their graph for the generator's turn."""
        if not torch.is_grad_enabled():
            return self._made(batch)
        frozen = [p for p in self._trained if not p.requires_grad]  # by the trainer, for this turn
        for parameter in frozen:
            parameter.requires_grad_(True)
        made = self._made(batch)
        for parameter in frozen:
            parameter.requires_grad_(False)
        self._kept = (batch, made)
        return made.detach()

    def for_generator(self, batch: CropBatch) -> Float[Tensor, "B N"]:
        """Return the waveforms with their graph: those that are kept, or made now."""
        if self._kept is None or self._kept[0] is not batch:
            return self._made(batch)
        (_, made), self._kept = self._kept, None
        return made

    def _made(self, batch: CropBatch) -> Float[Tensor, "B N"]:
        return self.network.waves(batch.units, batch.speakers, batch.valid, generator=Generator())

    def real(self, batch: CropBatch) -> Float[Tensor, "B N"]:
        """Return the recorded waveforms, zero where there is no valid frame, as made ones are."""
        inside = batch.valid.repeat_interleave(self.network.config.hop, dim=1)
        return trim(batch.waves, self.network.framing) * inside


class AdversarialGenerator(nn.Module):
    """The generator of the ``istft`` head; holds the discriminators without owning them."""

    def __init__(
        self, output: GeneratorOutput, discriminators: Discriminators, weights: LossConfig
    ) -> None:
        super().__init__()
        self.network = output.network
        self.output = output
        self.weights = weights
        self._others = (discriminators,)  # a tuple, so that their weights aren't ours

    def forward(self, batch: CropBatch) -> Loss:
        """Return the generator's loss, summed over valid frames of units."""
        network, weights = self.network, self.weights
        made, real = self.output.for_generator(batch), self.output.real(batch)
        frames = batch.valid.sum(dim=1)
        with torch.no_grad():
            of_real = self._others[0](real)
        of_made = self._others[0](made)
        with torch.autocast(made.device.type, enabled=False):
            sums = {
                "mel": multi_scale_mel(made, real, rate=network.config.sample_rate)
                / network.config.hop,
                "adversarial": (generator_loss(of_made) * frames).sum(),
                "feature": (feature_loss(of_real, of_made) * frames).sum(),
            }
            duration, runs = duration_loss(network, batch)
            total = (
                weights.mel * sums["mel"]
                + weights.adversarial * sums["adversarial"]
                + weights.feature * sums["feature"]
                + weights.duration * duration
            )
        parts = {name: (value.detach(), frames.sum()) for name, value in sums.items()}
        parts["duration"] = (duration.detach(), runs)
        return Loss(total=total, count=frames.sum(), parts=parts)


class AdversarialDiscriminator(nn.Module):
    """The discriminators; see the generator without owning it."""

    def __init__(self, output: GeneratorOutput, discriminators: Discriminators) -> None:
        super().__init__()
        self.discriminators = discriminators
        self.output = output

    def forward(self, batch: CropBatch) -> Loss:
        """Return the discriminators' loss, summed over valid frames of units."""
        made, real = self.output.for_discriminators(batch), self.output.real(batch)
        losses = discriminator_loss(self.discriminators(real), self.discriminators(made))
        frames = batch.valid.sum(dim=1)
        total = (losses * frames).sum()
        return Loss(
            total=total, count=frames.sum(), parts={"judged": (total.detach(), frames.sum())}
        )


def multi_scale_mel(
    made: Float[Tensor, "B N"], real: Float[Tensor, "B N"], *, rate: int
) -> Float[Tensor, ""]:
    """Return the distance of log10 mel magnitudes, summed over scales and samples.

    A frame counts as often as its hop has samples; within it the mean over mel bands is taken.
    """
    total = made.new_zeros(())
    for fft, num_mels in SCALES:
        framing = Framing(fft=fft, hop=fft // 4, left=0)
        filters = mel_filters(fft=fft, num_mels=num_mels, sample_rate=rate).to(made)
        ours, theirs = (
            log_mel(_magnitudes(functional.pad(wave, (fft // 2, fft // 2)), framing), filters)
            for wave in (made, real)
        )
        distance = (ours - theirs).abs().mean(dim=-1) / _LN_10
        total = total + distance.sum() * framing.hop
    return total


_LN_10 = 2.302585092994046


def _magnitudes(waves: Float[Tensor, "B N"], framing: Framing) -> Float[Tensor, "B T F"]:
    # abs() has no gradient at 0, where padded rows are
    parts = torch.view_as_real(spectrum(waves, framing))
    return parts.square().sum(dim=-1).clamp(min=1e-14).sqrt()


def duration_loss(
    network: UnitNetwork, batch: CropBatch
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return half the Poisson deviance of the durations, summed, and how many runs there are.

    d log(d / d') - d + d' is 0 for d' = d, and its minimum has the mean: what is predicted for a
    text lasts as long as what was spoken. The squared error in log(d + 1) of CodeHiFiGAN aims at
    the geometric mean and spoke 14 % too fast (the tour's corpus, held-out sentences).
    """
    known: Bool[Tensor, "M S"] = batch.durations > 0
    logarithms = (
        network.durations(batch.runs, batch.timed_speakers, known).float().clamp(max=_LONGEST)
    )
    true = batch.durations.clamp(min=1).float()
    deviance = true * (true.log() - logarithms) - true + logarithms.exp()
    return (deviance * known).sum(), known.sum().float()


_LONGEST = 9.0
"""Logarithm of the longest predicted duration: 8100 frames."""
