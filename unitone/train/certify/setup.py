"""A training set-up, small enough to be run several times, and what is seen of a run.

Every run is one of `Trainer`'s own; beside it stand hooks on the optimizers, which see the
gradients and learning rates that are really used.
"""

import contextlib
import hashlib
import io
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from unitone.resume import Journal
from unitone.train import checkpoint
from unitone.train.config import TrainConfig
from unitone.train.loading import BatchSource, flatten
from unitone.train.trainer import Trainer

STEPS = 10
SAVE_EVERY = 3
WARMUP = 2
FALL = 2
"""Steps of the schedule's end at least: from fewer, how it falls can't be seen."""
ACCUMULATE = 2
STEPS_OF_TWO = 3
DECAY_OF_EMA = 0.9
"""Where the set-up has no average of its own."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check has found; a line of the certificate."""

    what: str
    """What was checked, as a claim."""
    figure: str
    """The numbers that were compared."""
    passed: bool | None
    """None: the set-up has nothing to check."""
    cure: str = ""
    """Where to look if it failed."""


@dataclass(kw_only=True)
class Run:
    """What was seen of a training."""

    out: Path
    networks: Mapping[str, nn.Module]
    rates: dict[int, list[float]] = field(default_factory=dict)
    """Learning rates of every update, by optimizer."""
    reached: set[str] = field(default_factory=set)
    """Weights that an optimizer got a gradient of that is not all zeros."""
    lowest: dict[str, Tensor] = field(default_factory=dict)
    highest: dict[str, Tensor] = field(default_factory=dict)
    """The smallest and largest value that each weight has had, the initial one included."""
    batches: list[str] = field(default_factory=list)
    """Digests of what it was given, in order."""

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The records of every step."""
        records = Journal(self.out / "metrics.jsonl").records()
        return [record for record in records if "validation" not in record]

    def saved(self, number: int = -1) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of a checkpoint, the last one by default."""
        return checkpoint.read(checkpoint.found(self.out / "checkpoints")[number])[0]


def digest(batch: Any) -> str:
    """Return a hash over all that a batch holds."""
    found = hashlib.sha256()
    for name, leaf in flatten(batch):
        found.update(name.encode())
        if isinstance(leaf, Tensor):
            found.update(leaf.detach().cpu().contiguous().numpy().tobytes())
        else:
            found.update(leaf.tobytes() if isinstance(leaf, np.ndarray) else repr(leaf).encode())
    return found.hexdigest()


class Watched:
    """A source that notes its batches, and sends this process SIGTERM with one of them."""

    def __init__(self, source: BatchSource, seen: list[str], *, stop_at: int | None = None) -> None:
        self._source, self._stop_at = source, stop_at
        self.seen = seen

    def plan(self, window: int) -> Sequence[Any]:
        """Return the specs of a window."""
        return self._source.plan(window)

    def load(self, spec: Any) -> Any:
        """Return a batch, and note it."""
        batch = self._source.load(spec)
        self.seen.append(digest(batch))
        if len(self.seen) == self._stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch


@dataclass(frozen=True, kw_only=True)
class SetUp(ABC):
    """What is certified; picklable, because other processes train it too."""

    config: TrainConfig
    """What `small` made of the user's."""
    folder: Path
    """An empty one, for the runs."""

    @abstractmethod
    def networks(self) -> Mapping[str, nn.Module]:
        """Return the networks, in the order they step, as training begins with them."""

    @abstractmethod
    def source(self, seed: int) -> BatchSource:
        """Return the data in the order that ``seed`` says."""

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def plain(self) -> Run:
        """A run without an average and validation."""
        return self.train("plain", replace(self.config, ema=None))

    @cached_property
    def averaged(self) -> Run:
        """The same with both, and with models written."""
        return self.train("averaged", self.with_ema, **self.using())

    @cached_property
    def alone(self) -> Run:
        """A few steps in float32 on the CPU, for two processes to be compared with."""
        threads = torch.get_num_threads()
        try:
            return self.train("alone", self.side_by_side)
        finally:
            torch.set_num_threads(threads)

    @property
    def side_by_side(self) -> TrainConfig:
        """Return the configuration of what two processes are compared by."""
        config = replace(self.config, ema=None, steps=STEPS_OF_TWO, device="cpu")
        return replace(config, precision="fp32", threads=1)

    @property
    def with_ema(self) -> TrainConfig:
        """Return the configuration with an average of the weights, which is validated."""
        return replace(self.config, ema=self.config.ema or DECAY_OF_EMA, validate_every=2)

    def using(self) -> dict[str, Any]:
        """Return what `Trainer` calls in a run that validates and saves; see `Trained`."""
        trained = Trained(self)
        return {
            "networks": trained.networks,
            "validate": trained.validate,
            "save_model": trained.save,
        }

    def train(
        self,
        name: str,
        config: TrainConfig,
        *,
        networks: Mapping[str, nn.Module] | None = None,
        source: BatchSource | None = None,
        **calls: Any,
    ) -> Run:
        """Train in ``folder/name`` and return what was seen; ``calls`` as `Trainer` takes them."""
        networks = self.networks() if networks is None else networks
        run = Run(out=self.folder / name, networks=networks)
        source = self.source(config.seed) if source is None else source
        trainer = Trainer(
            config,
            networks=networks,
            source=Watched(source, run.batches),
            out=run.out,
            **calls,
        )
        with _seen(run), silent():
            trainer.run()
        return run


class Trained:
    """What `Trainer` calls while it trains: validation and the saving of a model."""

    def __init__(self, setup: SetUp) -> None:
        self.networks = setup.networks()
        source = setup.source(setup.config.seed)
        self._batch = source.load(source.plan(0)[0])

    def losses(self) -> list[float]:
        """Return the loss of one batch by every network, as it is now."""
        return [float(network(self._batch).total) for network in self.networks.values()]

    def validate(self, step: int) -> dict[str, float]:
        """Return the losses."""
        return {"loss": sum(self.losses())}

    def save(self, folder: Path) -> None:
        """Write the weights as they are used."""
        for name, network in self.networks.items():
            weights = checkpoint.weights(network)
            checkpoint.save_tensors(folder / f"{name}.safetensors", weights)


def small(config: TrainConfig, *, device: str | None = None) -> TrainConfig:
    """Return a training of a few steps that is optimized, scheduled and computed as ``config``."""
    return replace(
        config,
        steps=STEPS,
        warmup_steps=min(config.warmup_steps, WARMUP),
        decay_share=max(config.decay_share, FALL / STEPS),
        max_seconds=None,
        accumulate=ACCUMULATE,
        log_every=1,
        save_every=SAVE_EVERY,
        save_seconds=None,
        keep=STEPS,
        best=None,
        best_mode=None,
        explode_factor=None,
        workers=0,
        compile=False,
        parallel="auto",
        device=config.device if device is None else device,
    )


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep bars of the runs inside a check from the terminal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _seen(run: Run) -> Iterator[None]:
    """Note what the optimizers do."""
    names = {
        parameter: f"{network}.{name}"
        for network, module in run.networks.items()
        for name, parameter in module.named_parameters()
    }
    for parameter, name in names.items():
        run.lowest[name] = parameter.detach().cpu().clone()
        run.highest[name] = run.lowest[name].clone()

    def trained(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
        return (p for group in optimizer.param_groups for p in group["params"] if p in names)

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        run.rates.setdefault(id(optimizer), []).append(optimizer.param_groups[0]["lr"])
        for parameter in trained(optimizer):
            gradient = None if names[parameter] in run.reached else parameter.grad
            if gradient is not None and bool(gradient.ne(0).any()):
                run.reached.add(names[parameter])

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for parameter in trained(optimizer):
            name, value = names[parameter], parameter.detach().cpu()
            torch.minimum(run.lowest[name], value, out=run.lowest[name])
            torch.maximum(run.highest[name], value, out=run.highest[name])

    hooks = (register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def farthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, str]:
    """Return the largest difference of two sets of tensors, and the name it is at."""
    if one.keys() != other.keys():
        missing = min(one.keys() ^ other.keys())
        return float("inf"), missing
    found = {
        name: float((tensor.double() - other[name].double()).abs().max())
        for name, tensor in one.items()
        if tensor.numel()
    }
    name = max(found, key=lambda one: found[one], default="")
    return found.get(name, 0.0), name


Check = Callable[[SetUp], Finding]
