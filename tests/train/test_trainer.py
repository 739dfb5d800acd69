"""The trainer on toy networks: resuming to the bit, being killed, bad losses, bad disks.

Run as a program, this file is the training that a test kills: ``test_trainer.py OUT KILL_AT``.
"""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unitone import program
from unitone.errors import CheckpointError, ConfigError, UnitoneError
from unitone.seeding import stream
from unitone.train import checkpoint
from unitone.train.config import TrainConfig
from unitone.train.trainer import Loss, Trainer

ROOT = Path(__file__).resolve().parents[2]
DIM, HIDDEN = 8, 16


@dataclass(frozen=True, kw_only=True)
class Batch:
    inputs: Tensor
    targets: Tensor
    ids: tuple[int, int]
    padding: float = 0.25


@dataclass(kw_only=True)
class Source:
    """Seven batches a window, of three to nine rows; ``at`` makes something happen at one."""

    at: int = -1
    happens: Callable[[Batch], Batch] | None = None
    loaded: int = 0

    def plan(self, window: int) -> list[tuple[int, int]]:
        return [(window, int(index)) for index in stream(0, "order", window).permutation(7)]

    def load(self, spec: tuple[int, int]) -> Batch:
        generator = torch.Generator().manual_seed(1000 * spec[0] + spec[1])
        inputs = torch.randn(3 + spec[1], DIM, generator=generator)
        batch = Batch(inputs=inputs, targets=inputs.sum(dim=1), ids=spec)
        self.loaded += 1
        if self.loaded == self.at and self.happens is not None:
            return self.happens(batch)
        return batch


class Regression(nn.Module):
    """Two hidden layers with dropout, and a buffer."""

    def __init__(self, *, hidden: int = HIDDEN, dropout: float = 0.1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        sizes = [(DIM, hidden), (hidden, hidden)]
        self.blocks = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.head = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        for parameter in self.parameters():
            parameter.data.normal_(std=0.3, generator=generator)

    def predict(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for block in self.blocks:
            hidden = self.dropout(torch.tanh(block(hidden)))
        predicted: Tensor = self.head(hidden).squeeze(-1)
        return predicted

    def forward(self, batch: Batch) -> Loss:
        self.calls += 1
        errors = (self.predict(batch.inputs).float() - batch.targets) ** 2
        count = torch.tensor(len(errors), device=errors.device)
        return Loss(
            total=errors.sum(), count=count, parts={"square": (errors.sum().detach(), count)}
        )


def config(**changed: Any) -> TrainConfig:
    values = {"steps": 20, "lr": 1e-2, "save_every": 5, "log_every": 1, "device": "cpu"}
    return TrainConfig(**{**values, **changed})


def train(
    out: Path,
    settings: TrainConfig,
    *,
    source: Source | None = None,
    networks: Mapping[str, nn.Module] | None = None,
    **parts: Any,
) -> Mapping[str, nn.Module]:
    networks = networks or {"model": Regression()}
    Trainer(settings, networks=networks, source=source or Source(), out=out, **parts).run()
    return networks


def status_of(out: Path, **parts: Any) -> int:
    """Return the exit status of a command that trains."""

    def command() -> None:
        train(out, config(), **parts)

    return program.run(command)


def curve(out: Path) -> list[dict[str, Any]]:
    """Return the metrics without what depends on the clock."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    clock = {"seconds", "items_per_second"}
    return [{name: v for name, v in r.items() if name not in clock} for r in records]


def raises(error: BaseException) -> Callable[[Batch], Batch]:
    def happens(batch: Batch) -> Batch:
        raise error

    return happens


def sends(number: int) -> Callable[[Batch], Batch]:
    def happens(batch: Batch) -> Batch:
        os.kill(os.getpid(), number)
        return batch

    return happens


def spoilt(value: float) -> Callable[[Batch], Batch]:
    return lambda batch: dataclasses.replace(batch, targets=batch.targets * 0 + value)


def test_loss_falls_and_the_folder_says_what_made_it(tmp_path: Path) -> None:
    train(tmp_path, config(steps=60, log_every=20, lr=3e-2, accumulate=2, threads=None))

    losses = [record["loss"] for record in curve(tmp_path)]
    assert losses[-1] < losses[0] * 0.7
    assert curve(tmp_path)[0]["padding"] == 0.25
    assert curve(tmp_path)[0]["parts"] == {"square": losses[0]}
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 60
    (start,) = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert {"python", "torch", "unitone"} <= start["versions"].keys()


@pytest.mark.parametrize(
    "changed",
    [
        {"ema": 0.99, "accumulate": 2, "log_every": 3},
        {"optimizer": "muon", "schedule": "cosine", "warmup_steps": 8},
        {"precision": "bf16"},
    ],
    ids=["adamw", "muon", "bf16"],
)
def test_a_resumed_run_is_the_same_to_the_bit(tmp_path: Path, changed: dict[str, Any]) -> None:
    settings = config(**changed)
    through = train(tmp_path / "through", settings)
    crashing = Source(at=13 * settings.accumulate, happens=raises(OSError("the disk is gone")))
    with pytest.raises(OSError, match="gone"):
        train(tmp_path / "crashed", settings, source=crashing)
    resumed = train(tmp_path / "crashed", settings)

    assert curve(tmp_path / "crashed") == curve(tmp_path / "through")
    for name, tensor in through["model"].state_dict().items():
        assert torch.equal(tensor, resumed["model"].state_dict()[name])


def test_killed_and_resumed_with_other_workers_is_the_same_to_the_bit(tmp_path: Path) -> None:
    train(tmp_path / "through", config())
    command = [sys.executable, __file__, str(tmp_path / "killed"), "13"]
    killed = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(curve(tmp_path / "killed")) == 12
    train(tmp_path / "killed", config(workers=1))

    assert curve(tmp_path / "killed") == curve(tmp_path / "through")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tmp_path: Path, number: signal.Signals) -> None:
    train(tmp_path / "through", config())
    source = Source(at=8, happens=sends(number))
    status = status_of(tmp_path / "stopped", source=source)

    assert status == program.INTERRUPTED
    assert checkpoint.found(tmp_path / "stopped" / "checkpoints")[-1].name == "step-00000008"
    train(tmp_path / "stopped", config())
    assert curve(tmp_path / "stopped") == curve(tmp_path / "through")


def test_a_finished_run_is_left_alone_and_can_be_prolonged(tmp_path: Path) -> None:
    train(tmp_path, config(schedule="constant"))
    before = curve(tmp_path)
    source = Source()
    train(tmp_path, config(schedule="constant"), source=source)
    assert source.loaded == 0
    assert curve(tmp_path) == before
    train(tmp_path, config(schedule="constant", steps=25, save_every=7, workers=0))
    assert len(curve(tmp_path)) == 25


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path, config())
    with pytest.raises(ConfigError, match=r"train\.lr = 0\.01, now it is 0\.02"):
        train(tmp_path, config(lr=2e-2))


def test_settings_of_the_program_are_compared_too(tmp_path: Path) -> None:
    def go(**model: int) -> None:
        settings = {"model": model, "out": "anywhere"}
        networks = {"model": Regression()}
        source = Source()
        Trainer(config(), networks=networks, source=source, out=tmp_path, settings=settings).run()

    go(dim=3)
    with pytest.raises(ConfigError, match=r"model\.dim = 3, now it is 4"):
        go(dim=4)
    with pytest.raises(ConfigError, match=r"model\.heads = None, now it is 2"):
        go(dim=3, heads=2)


def test_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path, config())
    with pytest.raises(CheckpointError, match=r"'blocks\.0\.weight' has shape \(16, 8\)"):
        train(tmp_path, config(), networks={"model": Regression(hidden=5)})
    with pytest.raises(CheckpointError, match="no network 'recognizer'"):
        train(tmp_path, config(), networks={"recognizer": Regression()})


@pytest.mark.parametrize("lag", [0, 2], ids=["at-once", "late"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_a_bad_loss_stops_with_the_batch_saved(
    tmp_path: Path, value: float, lag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late, as on a GPU, is still before a checkpoint (of step 35) is written."""
    monkeypatch.setattr("unitone.train.trainer.lag_on", lambda device: lag)
    source = Source(at=34, happens=spoilt(value))
    with pytest.raises(
        UnitoneError, match=r"step 34, network 'model': its loss .*square"
    ) as caught:
        train(tmp_path, config(steps=50, log_every=100), source=source)

    folder = tmp_path / "offending-batch-34"
    assert str(folder) in str(caught.value)
    saved = checkpoint.load_tensors(folder / "micro-batch-0.safetensors")
    assert torch.allclose(saved["batch.targets"], torch.tensor(value), equal_nan=True)
    ids = json.loads((folder / "micro-batch-0.json").read_text())
    assert {"batch.ids.0", "batch.ids.1", "batch.padding"} == ids.keys()
    newest = checkpoint.found(tmp_path / "checkpoints")[-1]
    assert newest.name == "step-00000030"
    assert all(t.isfinite().all() for t in checkpoint.read(newest)[0]["model"].values())


def test_a_gradient_that_is_not_finite_stops(tmp_path: Path) -> None:
    class Infinite(Regression):
        def forward(self, batch: Batch) -> Loss:
            loss = super().forward(batch)
            edge = (self.head.bias * 0).sum().sqrt()  # 0, with an infinite slope
            return dataclasses.replace(loss, total=loss.total + edge)

    with pytest.raises(UnitoneError, match=r"step 1, network 'model'.*norm of its gradient is nan"):
        train(tmp_path, config(), networks={"model": Infinite()})


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    big = {"model": Regression(hidden=200)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(batch: Batch) -> Batch:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        return batch

    try:
        status = status_of(tmp_path, source=Source(at=8, happens=fill), networks=big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert status == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    checkpoint.read(tmp_path / "checkpoints" / "step-00000005")
    train(tmp_path, config(), networks={"model": Regression(hidden=200)})
    assert len(curve(tmp_path)) == 20


def test_a_checkpoint_cut_in_half_is_refused_with_the_cure(tmp_path: Path) -> None:
    train(tmp_path, config())
    newest = tmp_path / "checkpoints" / "step-00000020"
    cut = newest / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*go on from step-00000015"):
        train(tmp_path, config())
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    train(tmp_path, config())
    assert len(curve(tmp_path)) == 20


def test_best_and_last_have_the_averaged_weights(tmp_path: Path) -> None:
    model = Regression()
    seen: dict[int, Tensor] = {}

    def validate(step: int) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen[step] = model.head.weight.clone()
        return {"distance": abs(step - 10.0)}

    def save(folder: Path) -> None:
        checkpoint.save_tensors(folder / "model.safetensors", checkpoint.weights(model))

    settings = config(ema=0.9, validate_every=5, best="distance")
    train(tmp_path, settings, networks={"model": model}, validate=validate, save_model=save)

    best = checkpoint.load_tensors(tmp_path / "best" / "model.safetensors")
    last = checkpoint.load_tensors(tmp_path / "last" / "model.safetensors")
    assert torch.equal(best["head.weight"], seen[10])
    assert torch.equal(last["head.weight"], seen[20])
    assert not torch.equal(last["head.weight"], model.head.weight)
    assert model.training
    found = [record["validation"] for record in curve(tmp_path) if "validation" in record]
    assert [metrics["distance"] for metrics in found] == [5.0, 0.0, 5.0, 10.0]


@pytest.mark.parametrize(
    ("higher", "mode", "kept"),
    [((), None, 5), (("found",), None, 10), (("found",), "min", 5), ((), "max", 10)],
)
def test_best_is_the_better_value_as_the_metric_is_meant(
    tmp_path: Path, higher: tuple[str, ...], mode: Any, kept: int
) -> None:
    values, at = {5: 0.1, 10: 0.9, 15: 0.5, 20: 0.3}, [0]

    def validate(step: int) -> dict[str, float]:
        at[0] = step
        return {"found": values[step]}

    train(
        tmp_path,
        config(validate_every=5, best="found", best_mode=mode),
        validate=validate,
        higher_is_better=higher,
        save_model=lambda folder: (folder / str(at[0])).touch(),
    )
    assert (tmp_path / "best" / str(kept)).is_file()


def test_an_unknown_best_metric_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--best wer: the validation has loss"):
        train(tmp_path, config(best="wer"), validate=lambda step: {"loss": 1.0})
    with pytest.raises(ConfigError, match="no validation"):
        train(tmp_path, config(best="wer"))


def test_micro_batches_count_by_their_items(tmp_path: Path) -> None:
    """Seven batches of a window in one step are one batch of all their rows."""

    class Whole(Source):
        def plan(self, window: int) -> list[Any]:
            return [super().plan(window)]

        def load(self, spec: Any) -> Batch:
            batches = [Source.load(self, one) for one in spec]
            return Batch(
                inputs=torch.cat([batch.inputs for batch in batches]),
                targets=torch.cat([batch.targets for batch in batches]),
                ids=(0, 0),
            )

    def still() -> dict[str, nn.Module]:
        return {"model": Regression(dropout=0.0)}

    train(tmp_path / "seven", config(accumulate=7, steps=6), networks=still())
    train(tmp_path / "one", config(steps=6), source=Whole(), networks=still())
    seven, one = curve(tmp_path / "seven"), curve(tmp_path / "one")
    for a, b in zip(seven, one, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_a_budget_of_time_ends_the_run_decayed(tmp_path: Path) -> None:
    train(tmp_path, config(steps=10**6, max_seconds=0.5, save_every=10**6))
    last = curve(tmp_path)[-1]
    assert 2 < last["step"] < 10**6
    assert last["lr"] < 1e-2
    step = checkpoint.found(tmp_path / "checkpoints")[-1].name
    assert step == f"step-{last['step']:08d}"


def test_errors_of_the_data_reach_the_user(tmp_path: Path) -> None:
    class Empty(Source):
        def plan(self, window: int) -> list[tuple[int, int]]:
            return []

    with pytest.raises(ConfigError, match="nothing to train on"):
        train(tmp_path, config(), source=Empty())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr": 0.0}, "--lr must be more than 0"),
        ({"steps": 0}, "--steps"),
        ({"log_every": 0}, "--log-every"),
        ({"decay_share": 0.0}, "--decay-share"),
        ({"ema": 1.0}, "--ema"),
        ({"workers": -1}, "--workers"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config(**changed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of tracing through the shape hook
def test_compiled_networks_learn_the_same(tmp_path: Path) -> None:
    train(tmp_path / "plain", config(), networks={"model": Regression(dropout=0.0)})
    train(tmp_path / "compiled", config(compile=True), networks={"model": Regression(dropout=0.0)})
    for a, b in zip(curve(tmp_path / "plain"), curve(tmp_path / "compiled"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


@pytest.mark.gpu
def test_a_gpu_trains_in_bf16(tmp_path: Path) -> None:
    train(tmp_path, config(steps=60, lr=3e-2, device="cuda", precision="bf16", ema=0.9))
    losses = [record["loss"] for record in curve(tmp_path)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


if __name__ == "__main__":
    train(Path(sys.argv[1]), config(), source=Source(at=int(sys.argv[2]), happens=sends(9)))
