"""Two networks that train each other: turns, settings and intervals of their own, resuming."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.test_trainer import (
    DIM,
    Batch,
    Regression,
    Source,
    config,
    curve,
    raises,
    train,
)
from unitone.errors import ConfigError
from unitone.train.trainer import Loss


class Generator(nn.Module):
    """Makes a number that a discriminator, which it doesn't own, takes for a target."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.net = Regression(dropout=0.0)
        self._other = [discriminator]  # not registered

    def forward(self, batch: Batch) -> Loss:
        made = self.net.predict(batch.inputs)
        scores = self._other[0].score(batch.inputs, made)  # type: ignore[operator]
        count = torch.tensor(len(made))
        return Loss(total=((scores - 1) ** 2).sum(), count=count, parts={})


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(DIM + 1, 1)
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)
        self.generator: list[Generator] = []

    def score(self, inputs: Tensor, values: Tensor) -> Tensor:
        scores: Tensor = self.net(torch.cat([inputs, values[:, None]], dim=1)).squeeze(-1)
        return scores

    def forward(self, batch: Batch) -> Loss:
        with torch.no_grad():
            made = self.generator[0].net.predict(batch.inputs)
        real = (self.score(batch.inputs, batch.targets) - 1) ** 2
        fake = self.score(batch.inputs, made) ** 2
        count = torch.tensor(len(made))
        return Loss(
            total=(real + fake).sum(), count=count, parts={"real": (real.sum().detach(), count)}
        )


def gan() -> dict[str, nn.Module]:
    discriminator = Discriminator()
    generator = Generator(discriminator)
    discriminator.generator.append(generator)
    return {"discriminator": discriminator, "generator": generator}


def test_a_gan_steps_both_networks_and_resumes_to_the_bit(tmp_path: Path) -> None:
    through = train(tmp_path / "through", config(), networks=gan())
    source = Source(at=12, happens=raises(OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        train(tmp_path / "crashed", config(), networks=gan(), source=source)
    resumed = train(tmp_path / "crashed", config(), networks=gan())

    assert curve(tmp_path / "crashed") == curve(tmp_path / "through")
    first = curve(tmp_path / "through")[0]
    assert {"discriminator/loss", "generator/loss", "generator/grad_norm"} <= first.keys()
    for network in ("discriminator", "generator"):
        for name, tensor in through[network].state_dict().items():
            assert torch.equal(tensor, resumed[network].state_dict()[name])


def own(module: nn.Module, **changed: Any) -> None:
    module.optimization = dataclasses.replace(config().optimization, **changed)  # type: ignore[assignment]


def test_the_settings_of_the_run_asked_for_again_change_nothing(tmp_path: Path) -> None:
    train(tmp_path / "shared", config(), networks=gan())
    networks = gan()
    own(networks["generator"])
    train(tmp_path / "own", config(), networks=networks)
    assert curve(tmp_path / "own") == curve(tmp_path / "shared")


def test_a_network_has_a_rate_and_an_interval_of_its_own(tmp_path: Path) -> None:
    networks = gan()
    discriminator = networks["discriminator"]
    own(discriminator, lr=3e-3, schedule="constant", betas=(0.5, 0.9), update_every=2)
    updates: list[int] = []
    discriminator.register_forward_hook(lambda *_: updates.append(1))
    source = Source(at=13, happens=raises(OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        train(tmp_path, config(), networks=networks, source=source)
    again = gan()
    own(again["discriminator"], lr=3e-3, schedule="constant", betas=(0.5, 0.9), update_every=2)
    train(tmp_path, config(), networks=again)
    own(networks["discriminator"], lr=1e-3)
    with pytest.raises(ConfigError, match=r"optimization\.discriminator\."):
        train(tmp_path, config(), networks=networks)

    assert len(updates) == 6  # of the twelve steps before the crash
    assert len(curve(tmp_path)) == 20
    last = curve(tmp_path)[-1]
    assert last["discriminator/lr"] == 3e-3
    assert last["lr"] < 3e-3
    assert "generator/lr" not in last
    records = [r for r in curve(tmp_path) if "discriminator/loss" in r]
    assert [record["step"] for record in records] == list(range(2, 21, 2))
    assert all("padding" in record and "generator/loss" in record for record in curve(tmp_path))


def test_one_network_steps_always(tmp_path: Path) -> None:
    model = Regression()
    own(model, update_every=2)
    with pytest.raises(ConfigError, match="no network is updated at every step"):
        train(tmp_path, config(), networks={"model": model})
    with pytest.raises(ConfigError, match=r"update_every >= 1, got 0\.01, 0"):
        own(model, update_every=0)


def test_other_networks_get_no_gradient(tmp_path: Path) -> None:
    networks = gan()
    discriminator = networks["discriminator"]

    class Alone(Generator):
        def forward(self, batch: Batch) -> Loss:
            assert not any(p.requires_grad for p in discriminator.parameters())
            return super().forward(batch)

    networks["generator"] = Alone(discriminator)
    train(tmp_path, config(steps=2), networks=networks)
    assert all(p.requires_grad and p.grad is None for p in discriminator.parameters())


def test_muon_without_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no network names its blocks"):
        train(tmp_path, config(optimizer="muon"), networks=gan())
