"""A trainable module, and what trains its parameters.

Any `torch.nn.Module` whose ``forward(batch)`` returns a `Loss` is trainable. It may have more:
``blocks`` (`InBlocks`), which are compiled, sharded and given to Muon one by one;
``optimization`` (`OwnOptimization`), where a network of several is not optimized as the others; and
``calls_vary = True``, where it depends on the batch how often the blocks run: FSDP2 then shards the
module as a whole, because every call of a block waits for the other processes.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unitone.errors import CheckpointError, ConfigError
from unitone.train import checkpoint, distributed, optim
from unitone.train.config import OptimConfig, TrainConfig
from unitone.train.distributed import World, accumulating
from unitone.train.optim import Ema, scale_and_clip
from unitone.train.watch import Parts, Watch


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a trainable module returns of a batch. Sums, so that a step's batches may be unequal."""

    total: Tensor
    """Sum of the loss over the batch's items, a float32 scalar with a gradient."""
    count: Tensor
    """Number of items (tokens, frames), a scalar."""
    parts: Parts
    """For the log: name → (sum, number of items), detached; per task, per term."""


@runtime_checkable
class InBlocks(Protocol):
    """A module that consists of blocks, and little else."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Units of compilation, of sharding, and of the matrices that Muon trains."""
        ...


@runtime_checkable
class OwnOptimization(Protocol):
    """A module with optimizer settings of its own, such as one network of a GAN."""

    optimization: OptimConfig | None
    """None: as the run's `TrainConfig` says."""


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the blocks a module names; none if it names none."""
    if isinstance(module, InBlocks):
        return list(module.blocks)
    # since Python 3.12 the check doesn't see submodules, which PyTorch keeps out of __dict__
    return list(dict(module.named_children()).get("blocks", nn.Identity()).children())


def own_optimization(module: nn.Module) -> OptimConfig | None:
    """Return the settings a module asks for, if it does."""
    return module.optimization if isinstance(module, OwnOptimization) else None


class TrainedNetwork:
    """Forward, backward and update of one module; its weights and the state beside them."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        *,
        call: nn.Module,
        optimization: OptimConfig,
        optimizers: Sequence[torch.optim.Optimizer],
        watch: Watch,
        ema_decay: float | None,
    ) -> None:
        self.name = name
        self.module = module
        self.optimization = optimization
        self.lr = 0.0
        """Of the last update."""
        self.watch = watch
        self.ema = None if ema_decay is None else Ema(module, decay=ema_decay)
        self._call = call  # the module, or what distributes it
        self._optimizers = optimizers
        self._trained = [p for p in module.parameters() if p.requires_grad]

    def backward(
        self, batches: Sequence[Any], *, context: Callable[[int], AbstractContextManager[None]]
    ) -> tuple[Tensor, Parts]:
        """Accumulate the gradients of the batches' sums; return [loss, items] and the parts.

        ``context`` gives the surroundings of batch 0, 1, …: precision and randomness.
        """
        totals: Tensor | None = None
        parts: Parts = {}
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with accumulating(self._call, last=last):
                with context(index):
                    loss: Loss = self._call(batch)
                loss.total.backward()
            mine = torch.stack([loss.total.detach().float(), loss.count.float()])
            totals = mine if totals is None else totals + mine
            for name, (total, count) in loss.parts.items():
                before = parts.get(name)
                parts[name] = (total, count) if before is None else _add(before, (total, count))
        assert totals is not None
        return totals, parts

    def clip(self, *, scale: Tensor) -> Tensor:
        """Scale and shorten the gradients; return their norm between the two."""
        return scale_and_clip(self._trained, scale=scale, max_norm=self.optimization.clip_norm)

    def update(self, lr: float) -> None:
        """Step the optimizers and drop the gradients."""
        self.lr = lr
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep other networks' steps from making gradients here."""
        for parameter in self._trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self._trained:
                parameter.requires_grad_(True)

    def tensors(self, *, keep: bool) -> dict[str, dict[str, Tensor]]:
        """Return a checkpoint's sets of tensors, whole and on the CPU; every process must call."""
        found = {
            self.name: checkpoint.weights(self.module),
            f"{self.name}.optimizer": checkpoint.optimizer_state(self.module, self._optimizers),
        }
        if self.ema is not None:
            found[f"{self.name}.ema"] = self.ema.averages
        return {name: checkpoint.gather(content, keep=keep) for name, content in found.items()}

    def state(self) -> dict[str, Any]:
        """Return the rest of a checkpoint, as JSON values."""
        updates = 0 if self.ema is None else self.ema.updates
        return {"watch": self.watch.state(), "ema_updates": updates}

    def load(
        self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], *, where: str
    ) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it has no such network, or other weights.
        """
        if self.name not in tensors or self.name not in state:
            raise CheckpointError(f"{where} has no network {self.name!r}")
        checkpoint.load_weights(self.module, tensors[self.name], where=where)
        checkpoint.load_optimizer_state(
            self.module, self._optimizers, tensors[f"{self.name}.optimizer"], where=where
        )
        self.watch.load(state[self.name]["watch"])
        if self.ema is not None:
            self.ema.updates = state[self.name]["ema_updates"]
            checkpoint.copy_into(self.ema.averages, tensors[f"{self.name}.ema"], where=where)


def _add(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return a[0] + b[0], a[1] + b[1]


def assemble(
    modules: Mapping[str, nn.Module], config: TrainConfig, *, world: World
) -> list[TrainedNetwork]:
    """Put the modules on the device, wrap them for the processes, and give them optimizers.

    Raises:
        ConfigError: the number of processes, muon, or an update interval doesn't fit.
    """
    settings = {name: own_optimization(m) or config.optimization for name, m in modules.items()}
    _check(modules, settings, config, world=world)
    networks = []
    for name, module in modules.items():
        module.to(world.device).train()
        blocks, settled = blocks_of(module), settings[name]
        if config.compile:  # block by block: all of one kind share one compilation
            for block in blocks or [module]:
                block.compile(dynamic=True)
        apart = () if getattr(module, "calls_vary", False) else blocks
        call = distributed.wrap(module, blocks=apart, parallel=config.parallel, world=world)
        optimizers = optim.build(
            module,
            blocks=blocks,
            name=settled.optimizer,
            lr=settled.lr,
            betas=settled.betas,
            weight_decay=settled.weight_decay,
            muon_dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        )
        networks.append(
            TrainedNetwork(
                name,
                module,
                call=call,
                optimization=settled,
                optimizers=optimizers,
                watch=Watch(config.explode_factor),
                ema_decay=config.ema,
            )
        )
    return networks


def _check(
    modules: Mapping[str, nn.Module],
    settings: Mapping[str, OptimConfig],
    config: TrainConfig,
    *,
    world: World,
) -> None:
    if config.accumulate % world.size:
        raise ConfigError(
            f"--accumulate {config.accumulate} is not a multiple of the {world.size} processes"
        )
    by_muon = [blocks_of(m) for name, m in modules.items() if settings[name].optimizer == "muon"]
    if by_muon and not any(map(optim.hidden_matrices, by_muon)):
        raise ConfigError("--optimizer muon: no network names its blocks; choose adamw")
    if all(one.update_every > 1 for one in settings.values()):
        raise ConfigError("no network is updated at every step; give one an update_every of 1")
