from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from unitone.codecs.nn.crops import CropBatch
from unitone.codecs.nn.discriminators import (
    DiscriminatorOutput,
    Discriminators,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from unitone.codecs.nn.losses import (
    AdversarialDiscriminator,
    AdversarialGenerator,
    GeneratorOutput,
    MelRegression,
    duration_loss,
    multi_scale_mel,
)
from unitone.codecs.nn.network import UnitNetwork
from unitone.codecs.options import LossConfig

MakeNetwork = Callable[..., UnitNetwork]
FRAMES = 16


def batch_of(network: UnitNetwork, lengths: list[int]) -> CropBatch:
    """Return crops of a hum with noise; the first samples lie ``left`` before frame 0."""
    draw = torch.Generator().manual_seed(5)
    framing, hop = network.framing, network.config.hop
    num_samples = framing.left + FRAMES * hop + framing.right
    hum = 0.3 * torch.sin(2 * torch.pi * 180 * torch.arange(num_samples) / 16_000)
    waves = hum + 0.03 * torch.randn(len(lengths), num_samples, generator=draw)
    valid = torch.arange(FRAMES) < torch.tensor(lengths)[:, None]
    runs = torch.randint(0, 6, (len(lengths), 5), generator=draw)
    durations = torch.tensor([[2, 3, 1, 4, 2]] * len(lengths))
    durations[:, 3:] *= valid[:, -1:]
    return CropBatch(
        units=torch.randint(0, 6, (len(lengths), FRAMES), generator=draw) * valid,
        valid=valid,
        speakers=torch.arange(len(lengths)) % 2,
        timed_speakers=torch.arange(len(lengths)) % 2,
        waves=waves,
        runs=runs,
        durations=durations,
    )


def rows_of(batch: CropBatch) -> Iterator[CropBatch]:
    for row in range(len(batch.units)):
        values = {f.name: getattr(batch, f.name)[row : row + 1] for f in fields(batch)}
        yield CropBatch(**values)


def test_the_loss_of_a_batch_is_the_sum_of_its_rows(make_network: MakeNetwork) -> None:
    objective = MelRegression(make_network(), LossConfig()).eval()
    batch = batch_of(objective.network, [16, 9, 3])
    whole = objective(batch)
    parts = [objective(row) for row in rows_of(batch)]
    torch.testing.assert_close(whole.total, torch.stack([p.total for p in parts]).sum())
    assert int(whole.count) == 28
    assert set(whole.parts) == {"mel", "linear", "duration"}


def test_the_adversarial_losses_of_a_batch_are_the_sums_of_its_rows(
    make_network: MakeNetwork,
) -> None:
    network = make_network("istft")
    discriminators = Discriminators(width=0.05, generator=torch.Generator().manual_seed(2)).eval()
    batch, output = batch_of(network, [16, 16]), GeneratorOutput(network)
    for objective in (
        AdversarialGenerator(output, discriminators, LossConfig()).eval(),
        AdversarialDiscriminator(output, discriminators).eval(),
    ):
        whole, parts = objective(batch), [objective(row) for row in rows_of(batch)]
        torch.testing.assert_close(whole.total, torch.stack([p.total for p in parts]).sum())


def test_what_is_not_valid_has_no_say(make_network: MakeNetwork) -> None:
    objective = MelRegression(make_network(), LossConfig()).eval()
    batch = batch_of(objective.network, [9])
    units, waves = batch.units.clone(), batch.waves.clone()
    units[:, 9:] = 3
    waves[:, 9 * 160 + objective.network.framing.fft :] = 7.0
    other = replace(batch, units=units, waves=waves)
    torch.testing.assert_close(objective(other).total, objective(batch).total)


def test_the_loss_of_perfect_magnitudes_is_zero(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unitone.codecs.nn.spectrum import spectrum

    network = make_network()
    objective = MelRegression(network, LossConfig(duration=0.0))
    batch = batch_of(network, [16])
    truth = spectrum(batch.waves, network.framing).abs().log()
    monkeypatch.setattr(network, "log_magnitudes", lambda *_: truth)
    assert float(objective(batch).total.detach()) == pytest.approx(0.0, abs=1e-3)


def test_durations_are_compared_by_their_poisson_deviance(make_network: MakeNetwork) -> None:
    network = make_network()
    with torch.no_grad():
        network.durations.project.weight.zero_()
        network.durations.project.bias.fill_(float(np.log(3.0)))
    total, runs = duration_loss(network, batch_of(network, [9]))  # durations 2, 3, 1
    expected = sum(d * np.log(d / 3) - d + 3 for d in (2, 3, 1))
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(runs) == 3


def test_multi_scale_mel_is_zero_for_equals_and_grows() -> None:
    wave = 0.1 * torch.randn(2, 3200, generator=torch.Generator().manual_seed(0))
    same = multi_scale_mel(wave, wave, rate=16_000)
    near = multi_scale_mel(1.1 * wave, wave, rate=16_000)
    far = multi_scale_mel(2.0 * wave, wave, rate=16_000)
    assert float(same) == 0
    # a gain of 2 is log10(2) in every band of each of the seven scales
    assert float(far) / (7 * 2 * 3200) == pytest.approx(np.log10(2), rel=0.15)
    assert 0 < float(near) < float(far)


def test_multi_scale_mel_has_a_gradient_in_silence() -> None:
    wave = torch.zeros(1, 3200, requires_grad=True)
    multi_scale_mel(wave, torch.full((1, 3200), 0.1), rate=16_000).backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()


def test_least_squares_by_hand() -> None:
    def judged(score: float, feature: float) -> list[DiscriminatorOutput]:
        return [
            DiscriminatorOutput(
                score=torch.full((1, 1, 4), score), features=(torch.full((1, 2, 3), feature),)
            )
        ]

    real, made = judged(0.5, 1.0), judged(0.25, 4.0)
    assert discriminator_loss(real, made).tolist() == [0.25 + 0.0625]
    assert generator_loss(made).tolist() == [0.5625]
    assert feature_loss(real, made).tolist() == [3.0]


def test_discriminators_see_every_period_and_window_whatever_the_level() -> None:
    discriminators = Discriminators(width=0.05, generator=torch.Generator().manual_seed(0)).eval()
    wave = torch.randn(2, 1601, generator=torch.Generator().manual_seed(1))
    quiet = discriminators(0.01 * wave + 0.2)
    for ours, theirs in zip(discriminators(wave), quiet, strict=True):
        torch.testing.assert_close(ours.score, theirs.score, atol=1e-4, rtol=1e-3)
    assert len(quiet) == 8
    assert [len(one.features) for one in quiet] == [5] * 5 + [25] * 3


def test_adversaries_step_without_touching_each_other_and_improve(
    make_network: MakeNetwork,
) -> None:
    network = make_network("istft").train()
    discriminators = Discriminators(width=0.05, generator=torch.Generator().manual_seed(2))
    output = GeneratorOutput(network)
    generator = AdversarialGenerator(output, discriminators, LossConfig())
    discriminator = AdversarialDiscriminator(output, discriminators)
    assert not {id(p) for p in generator.parameters()} & {
        id(p) for p in discriminators.parameters()
    }
    assert not {id(p) for p in discriminator.parameters()} & {id(p) for p in network.parameters()}
    batch = batch_of(network, [16, 12])
    objectives = [discriminator, generator]
    optimizers = [torch.optim.AdamW(p.parameters(), lr=3e-3, betas=(0.8, 0.99)) for p in objectives]
    history: dict[str, list[float]] = {}
    for _ in range(8):
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            loss = objective(batch)
            (loss.total / loss.count).backward()
            optimizer.step()
            for one in optimizers:
                one.zero_grad()
            for name, (value, count) in loss.parts.items():
                history.setdefault(name, []).append(float(value / count))
    assert history["mel"][-1] < 0.9 * history["mel"][0]
    assert history["judged"][-1] < 0.9 * history["judged"][0]
    assert np.isfinite(list(history.values())).all()


def test_a_step_of_a_gan_runs_its_generator_once(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network("istft").train()
    discriminators = Discriminators(width=0.05, generator=torch.Generator().manual_seed(2))
    output = GeneratorOutput(network)
    discriminator = AdversarialDiscriminator(output, discriminators)
    generator = AdversarialGenerator(output, discriminators, LossConfig())
    batch = batch_of(network, [16, 12])
    alone = torch.autograd.grad(generator(batch).total, list(network.decoder.parameters()))
    runs: list[int] = []
    network.decoder.register_forward_hook(lambda *_: runs.append(1))
    for parameter in network.parameters():  # as the trainer does in the discriminator's turn
        parameter.requires_grad_(False)
    discriminator(batch).total.backward()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    assert all(parameter.grad is None for parameter in network.parameters())
    shared = torch.autograd.grad(generator(batch).total, list(network.decoder.parameters()))
    assert len(runs) == 1
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))
    generator(batch)  # a batch is made anew once its waveforms were used
    assert len(runs) == 2


def test_regression_learns_one_batch(make_network: MakeNetwork) -> None:
    objective = MelRegression(make_network(), LossConfig()).train()
    batch = batch_of(objective.network, [16, 12])
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = objective(batch)
        (loss.total / loss.count).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.total.detach() / loss.count))
    assert losses[-1] < 0.4 * losses[0]
