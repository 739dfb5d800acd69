"""A certificate of any family: a unigram model, and a classifier with convolutions and batch norm.

The fourteenth planted fault is here: padding in the statistics of a batch norm.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lm.test_family_seam import FILES
from tests.lm.test_family_seam import toy as toy
from unitone.lm import families
from unitone.lm.certify.certificate import CHECKS, checked
from unitone.lm.certify.setup import LmSetUp, set_up
from unitone.lm.options import LmConfig, MixtureConfig
from unitone.train.certify.setup import Finding
from unitone.train.config import TrainConfig

IN_THIS_PROCESS = [name for name in CHECKS if name not in ("order", "ddp", "fsdp")]
"""Others don't know the families of this file."""

CONVOLUTIONS = {
    "options": FILES["options"].replace("toy-unigram", "toy-conv"),
    "model": """
from dataclasses import dataclass
import torch
from torch import nn
@dataclass(frozen=True, kw_only=True)
class Config:
    vocab_size: int
    context: int = 64
class Norm(nn.BatchNorm1d):
    padding_counts = False
    def forward(self, x, valid):
        if not self.training or self.padding_counts:
            return super().forward(x)
        real = x.transpose(1, 2)[valid]
        normed = super().forward(real[..., None])[..., 0]
        return torch.zeros_like(x.transpose(1, 2)).index_put((valid,), normed).transpose(1, 2)
class Unigram(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Embedding(config.vocab_size, 16)
        self.norm = Norm(16)
        self.head = nn.Linear(16, config.vocab_size)
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)
    def forward(self, units, lengths):
        valid = torch.arange(units.shape[1]) < lengths[:, None]
        x = torch.relu(self.norm(self.table(units).transpose(1, 2), valid)) * valid[:, None]
        return self.head(x.sum(2) / lengths[:, None])
""",
    "objective": """
import torch
from unitone.train.trainer import Loss
class Objective(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, batch):
        losses = -self.model(batch.units, batch.lengths).log_softmax(-1).gather(1, batch.said)
        total, count = losses.sum(), torch.tensor(len(losses))
        return Loss(total=total, count=count, parts={"guess": (total.detach(), count)})
""",
    "batch": """
from dataclasses import dataclass
from typing import Any
import torch
@dataclass(frozen=True)
class Batch:
    units: Any
    lengths: Any
    said: Any
class Batching:
    longest, capacity = 63, None
    def fields(self, task):
        return ("units", "language")
    def cost(self, task, sizes):
        return sizes("units")
    def example(self, task, record, generator):
        return record["units"].tolist(), len(record["language"] + record["id"])
    def collate(self, rows):
        made = [example for row in rows for _, example in row]
        longest = max(len(units) for units, _ in made)
        units = torch.tensor([units + [0] * (longest - len(units)) for units, _ in made])
        lengths = torch.tensor([len(units) for units, _ in made])
        return Batch(units, lengths, torch.tensor([[said] for _, said in made]))
""",
    "predictor": FILES["predictor"]
    .replace("inputs=()", 'inputs=("units",)')
    .replace('output="text", metric="wer"', 'output="language", metric="accuracy"'),
}


@pytest.fixture
def conv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, source in CONVOLUTIONS.items():
        monkeypatch.setitem(FILES, name, source)
    yield from toy.__wrapped__(tmp_path, monkeypatch)  # type: ignore[attr-defined]


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], LmSetUp]:
    def made(size: str) -> LmSetUp:
        options: Any = importlib.import_module("unitone.lm.toy.options").Options()
        config = LmConfig(
            tokens=Path("none"),
            out=Path("none"),
            config=size,
            options=options,
            mixture=MixtureConfig(max_tokens=256),
            train=TrainConfig(steps=100, lr=1e-2, device="cpu", threads=1),
        )
        folder = tmp_path / f"certified-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return set_up(config, folder, given=False)

    return made


def findings(setup: LmSetUp) -> dict[str, Finding]:
    return {name: checked(name, setup) for name in IN_THIS_PROCESS}


def test_a_family_brings_nothing_for_it(toy: None, make: Callable[[str], LmSetUp]) -> None:
    found = findings(make("toy-unigram"))
    assert {name: one.figure for name, one in found.items() if one.passed is False} == {}
    assert found["padding"].passed is None  # its batches have no rows


def test_13_padding_in_batch_norm(
    conv: None, make: Callable[[str], LmSetUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert families.names()["toy"] == "toy-"
    found = findings(make("toy-conv"))
    assert {name: one.figure for name, one in found.items() if one.passed is False} == {}
    assert found["padding"].passed is True
    model: Any = importlib.import_module("unitone.lm.toy.model")
    monkeypatch.setattr(model.Norm, "padding_counts", True)
    finding = checked("padding", make("toy-conv"))
    assert finding.passed is False
    assert finding.what == found["padding"].what
