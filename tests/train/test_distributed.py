"""Two gloo processes against one: the same curves, files and weights, with DDP and FSDP2.

Run as a program under torchrun, this file is the training: ``test_distributed.py OUT``.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unitone.errors import ConfigError
from unitone.train import checkpoint, distributed
from unitone.train.config import Parallel, TrainConfig
from unitone.train.distributed import World, started
from unitone.train.trainer import Loss, Trainer

ROOT = Path(__file__).resolve().parents[2]
DIM = 6


class Source:
    def plan(self, window: int) -> range:
        return range(8 * window, 8 * window + 8)

    def load(self, spec: int) -> Tensor:
        generator = torch.Generator().manual_seed(spec)
        return torch.randn(2 + spec % 5, DIM, generator=generator)


class Network(nn.Module):
    """Two blocks with dropout, and two heads of which a batch uses one."""

    def __init__(self, *, use_all: bool) -> None:
        super().__init__()
        self.use_all = use_all
        self.blocks = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(2))
        self.even = nn.Linear(DIM, 1)
        self.odd = nn.Linear(DIM, 1)
        self.dropout = nn.Dropout(0.1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data.normal_(std=0.3, generator=generator)

    def forward(self, batch: Tensor) -> Loss:
        hidden = batch
        for block in self.blocks:
            hidden = self.dropout(torch.tanh(block(hidden)))
        is_even = len(batch) % 2 == 0
        head, other = (self.even, self.odd) if is_even else (self.odd, self.even)
        total = ((head(hidden).squeeze(1) - batch.sum(dim=1)) ** 2).sum()
        if self.use_all:
            total = total + 0 * other(hidden).sum()
        count = torch.tensor(len(batch))
        return Loss(
            total=total, count=count, parts={"even" if is_even else "odd": (total.detach(), count)}
        )


def train(out: Path, *, steps: int = 8, parallel: Parallel = "auto", optimizer: str) -> Network:
    network = Network(use_all=parallel == "fsdp")

    def validate(step: int) -> dict[str, float]:
        with torch.no_grad():
            return {"loss": float(network(torch.ones(3, DIM)).total)}

    def save(folder: Path) -> None:
        checkpoint.save_tensors(folder / "model.safetensors", checkpoint.weights(network))

    config = TrainConfig(
        steps=steps,
        schedule="constant",
        lr=1e-2,
        accumulate=4,
        ema=0.9,
        optimizer="muon" if optimizer == "muon" else "adamw",
        parallel=parallel,
        device="cpu",
        save_every=5,
        validate_every=4,
        log_every=2,
    )
    Trainer(
        config,
        networks={"model": network},
        source=Source(),
        out=out,
        validate=validate,
        save_model=save,
    ).run()
    return network


def assert_alike(one: Path, other: Path) -> None:
    """Compare curves, validations, averaged models and optimizer states."""
    first, second = (
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (one, other)
    )
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a["step"] == b["step"]
        if "validation" in a:
            assert a["validation"] == pytest.approx(b["validation"], rel=1e-5)
            continue
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
        assert a["parts"] == pytest.approx(b["parts"], rel=1e-5)
    newest = [checkpoint.found(out / "checkpoints")[-1] for out in (one, other)]
    assert newest[0].name == newest[1].name
    tensors = [checkpoint.read(folder)[0] for folder in newest]
    assert tensors[0].keys() == tensors[1].keys()
    for kind in tensors[0]:
        assert tensors[0][kind].keys() == tensors[1][kind].keys()
        for name, tensor in tensors[0][kind].items():
            torch.testing.assert_close(tensors[1][kind][name], tensor, rtol=1e-4, atol=1e-5)
    models = [checkpoint.load_tensors(out / "last" / "model.safetensors") for out in (one, other)]
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=1e-4, atol=1e-5)


def launch(out: Path, *, processes: int) -> None:
    """Start this file as ``torchrun`` would, without its half a minute of importing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {**os.environ, **shared, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(out)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        said = [process.communicate(timeout=90)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert [process.returncode for process in running] == [0] * processes, "\n".join(said)


WAYS: list[tuple[Parallel, str]] = [
    ("ddp", "adamw"),
    ("fsdp", "adamw"),
    ("fsdp", "muon"),
]


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    for optimizer in ("adamw", "muon"):
        train(tmp_path / f"one-{optimizer}", optimizer=optimizer)
    launch(tmp_path, processes=2)

    for parallel, optimizer in WAYS:
        assert_alike(tmp_path / f"one-{optimizer}", tmp_path / f"{parallel}-{optimizer}")
    # what two processes wrote, one goes on from
    train(tmp_path / "one-muon", steps=12, optimizer="muon")
    train(tmp_path / "fsdp-muon", steps=12, optimizer="muon")
    assert_alike(tmp_path / "one-muon", tmp_path / "fsdp-muon")


def test_one_process_is_a_world() -> None:
    with started("cpu") as world:
        assert world.first
        assert world.gather("x") == ["x"]
        assert world.of_first(3) == 3
        assert world.sum(torch.tensor(2.0)) == 2


def test_impossible_ways_are_refused() -> None:
    two = World(rank=0, size=2, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="torchrun started 2 processes"):
        distributed.wrap(Network(use_all=False), blocks=[], parallel="none", world=two)


def program() -> None:
    """Train in every way; go on in the other way, from the middle."""
    with started("cpu"):
        for parallel, optimizer in WAYS:
            folder = Path(sys.argv[1]) / f"{parallel}-{optimizer}"
            train(folder, steps=4, parallel=parallel, optimizer=optimizer)
            train(folder, parallel="ddp" if parallel == "fsdp" else "fsdp", optimizer=optimizer)


if __name__ == "__main__":
    program()
