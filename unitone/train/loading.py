"""From a plan of batches to batches on the device, in order, by any number of worker processes.

A position in the data is an epoch window and an index into its plan, so a run goes on from it at
once.
"""

import dataclasses
import multiprocessing
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unitone.errors import ConfigError, UnitoneError

PREFETCH = 4
"""Batches each worker process prepares ahead."""


@runtime_checkable
class BatchSource(Protocol):
    """Data as a pure function of its window: resuming costs nothing, and workers are free."""

    def plan(self, window: int) -> Sequence[Any]:
        """Return what the batches of an epoch window (0, 1, …) are made of, in order; pure.

        A window is what is shuffled together: an epoch, or less. None may be empty.
        """
        ...

    def load(self, spec: Any) -> Any:
        """Make one batch of an item of the plan: a dataclass, dict or tuple with tensors.

        Pure too: random augmentation draws from a stream that the spec names. May run in another
        process, so the source and its specs must be picklable.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Position:
    """The next batch: item ``index`` of the plan of ``window``."""

    window: int = 0
    index: int = 0

    def saved(self) -> dict[str, int]:
        """Return what a checkpoint has of it."""
        return {"round": self.window, "index": self.index}  # compat: what windows were called

    @classmethod
    def of(cls, saved: Mapping[str, int]) -> "Position":
        """Return the position that `saved` describes."""
        return cls(window=saved["round"], index=saved["index"])


def batches(
    source: BatchSource,
    *,
    start: Position,
    per_step: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
) -> Generator[tuple[Any, Position], None, None]:
    """Yield this process's batches for ever, each with the position after its step.

    Args:
        source: the data.
        start: the position to begin with.
        per_step: micro-batches of a step, over all processes.
        rank: of this process, which has every ``world_size``-th batch of a step.
        world_size: number of processes.
        workers: processes that load; 0 loads in this one. The batches are the same.
    """
    steps = walk(source, start=start, per_step=per_step)
    mine = ((spec, after) for specs, after in steps for spec in specs[rank::world_size])
    if workers == 0:
        for spec, after in mine:
            yield source.load(spec), after
        return
    methods = multiprocessing.get_all_start_methods()
    loader = DataLoader(
        _Loading(source),
        sampler=mine,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH,
        # a plain fork copies the threads' locks without the threads
        multiprocessing_context="forkserver" if "forkserver" in methods else "spawn",
        worker_init_fn=_leave_signals,
        generator=torch.Generator(),  # else it would draw from the global one
    )
    for loaded, after in loader:
        if isinstance(loaded, UnitoneError):
            raise loaded
        yield loaded, after


def walk(
    source: BatchSource, *, start: Position, per_step: int
) -> Iterator[tuple[list[Any], Position]]:
    """Yield the specs of one step after another, and the position after each.

    Raises:
        ConfigError: an epoch window has no batches.
    """
    window, index = start.window, start.index
    plan = source.plan(window)
    while True:
        specs: list[Any] = []
        while len(specs) < per_step:
            if index >= len(plan):
                window, index = window + 1, 0
                plan = source.plan(window)
            if len(plan) == 0:
                raise ConfigError(f"there is nothing to train on: window {window} has no batches")
            specs.append(plan[index])
            index += 1
        yield specs, Position(window=window, index=index)


class _Loading(Dataset[tuple[Any, Position]]):
    """What a worker process has; errors for the user come back as values, without its traceback."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source

    def __getitem__(self, item: tuple[Any, Position]) -> tuple[Any, Position]:
        spec, after = item
        try:
            return self._source.load(spec), after
        except UnitoneError as error:
            return error, after


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C and a shutdown, which reach every process, to the training process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def to_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with its tensors on ``device``; dataclasses, dicts, tuples, lists."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        moved = {f.name: to_device(getattr(batch, f.name), device) for f in _init_fields(batch)}
        return dataclasses.replace(batch, **moved)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def flatten(batch: Any, name: str = "batch") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a batch, each with its dotted name."""
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for field in dataclasses.fields(batch):
            yield from flatten(getattr(batch, field.name), f"{name}.{field.name}")
    elif isinstance(batch, dict):
        for key, value in batch.items():
            yield from flatten(value, f"{name}.{key}")
    elif isinstance(batch, list | tuple):
        for number, value in enumerate(batch):
            yield from flatten(value, f"{name}.{number}")
    else:
        yield name, batch


def _init_fields(batch: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(batch) if field.init]
