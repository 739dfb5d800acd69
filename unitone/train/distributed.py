"""One process or many: what ``torchrun`` started, DDP and FSDP2. One process is no special case.

Gradients of both are averages over the processes; the trainer multiplies them by their number.
"""

import contextlib
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unitone import devices
from unitone.errors import ConfigError
from unitone.train.config import Parallel
from unitone.train.optim import sharded, whole

PATIENCE = timedelta(hours=2)
"""How long the others wait while the first process validates."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, as one of them sees it."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and logs."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, in order of rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def of_first(self, value: Any) -> Any:
        """Return the first process's value; the others' is ignored."""
        return self.gather(value if self.first else None)[0]


@contextlib.contextmanager
def started(device: str) -> Iterator[World]:
    """Join the processes that ``torchrun`` started, if it did; leave them at the end.

    Leaving is for good: a program that trains twice holds this around both.

    Args:
        device: as ``--device`` says; ``auto`` and ``cuda`` are GPU number LOCAL_RANK.

    Raises:
        ConfigError: no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 and not dist.is_initialized():
        yield World(rank=0, size=1, device=devices.resolve(device))
        return
    found = devices.resolve(device)
    if found.type == "cuda":
        found = devices.resolve(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(found)
    elif found.type != "cpu":
        raise ConfigError(f"--device {found}: several processes need cpu or cuda")
    owned = not dist.is_initialized()
    if owned:
        backend = "nccl" if found.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=found)
    finally:
        if owned:
            dist.destroy_process_group()


def wrap(
    network: nn.Module, *, blocks: Sequence[nn.Module], parallel: Parallel, world: World
) -> nn.Module:
    """Return the module to call in place of ``network``.

    FSDP2 shards its ``blocks`` one by one, and the rest together; it changes
    ``network`` itself, and its forward must then use every parameter in every batch (add 0 times
    what a batch has no use for): the processes exchange the gradients that there are.

    Raises:
        ConfigError: a way of several processes is wanted of one, or the other way round.
    """
    if parallel == "auto":
        parallel = "none" if world.size == 1 else "ddp"
    if parallel == "none" and world.size > 1:
        raise ConfigError(f"--parallel none: torchrun started {world.size} processes; choose ddp")
    if parallel == "none" or world.size == 1:
        return network
    if parallel == "ddp":
        # a task or an input option that is not in a batch leaves parameters without a gradient
        return DistributedDataParallel(network, find_unused_parameters=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def _by_fsdp(module: nn.Module) -> Any:
    """Return ``module`` where FSDP2 shards it, else None; its import takes seconds."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return module if fsdp is not None and isinstance(module, fsdp.FSDPModule) else None


@contextlib.contextmanager
def accumulating(module: nn.Module, *, last: bool) -> Iterator[None]:
    """Exchange gradients in the last micro-batch of a step only; ``module`` is what `wrap` gave."""
    found = _by_fsdp(module)
    if found is not None:
        found.set_requires_gradient_sync(last)
        yield
    elif isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        yield


@contextlib.contextmanager
def unsharded(module: nn.Module, *, keep: bool) -> Iterator[None]:
    """Turn what FSDP2 sharded into a plain module for a while, where ``keep`` says so.

    Every process must call this; then one alone can call the module, or save its state.
    """
    places = [
        (part, name, parameter)
        for part in module.modules()
        for name, parameter in part.named_parameters(recurse=False)
        if sharded(parameter) is not None
    ]
    wholes: dict[int, nn.Parameter] = {}  # by identity, so that tied weights stay tied
    for _, _, parameter in places:
        if id(parameter) not in wholes:
            tensor = whole(parameter.detach())
            wholes[id(parameter)] = nn.Parameter(tensor if keep else tensor.new_empty(0))
    if not keep or not places:
        yield
        return
    hooks = [
        (part, kind, getattr(part, kind))
        for part in module.modules()
        if _by_fsdp(part) is not None
        for kind in ("_forward_pre_hooks", "_forward_hooks", "_state_dict_pre_hooks")
    ]
    for part, name, parameter in places:
        part.register_parameter(name, wholes[id(parameter)])
    for part, kind, _ in hooks:
        setattr(part, kind, OrderedDict())
    try:
        yield
    finally:
        for part, kind, before in hooks:
            setattr(part, kind, before)
        for part, name, parameter in places:
            part.register_parameter(name, parameter)
