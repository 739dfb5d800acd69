"""What a training step gave, and whether to go on: losses that are not finite or that explode.

On a GPU the numbers of a step are read a few steps later, so that nobody waits for them; before
anything is written they are all read.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitone import files
from unitone.train.checkpoint import save_tensors
from unitone.train.loading import flatten

MEMORY = 101
"""Losses the running median is taken of."""
ENOUGH = 20
"""Losses it takes before one is called exploding."""

Parts = dict[str, tuple[Tensor, Tensor]]


class Outcome:
    """The numbers of one step of one network, on their way from the device."""

    def __init__(
        self, *, step: int, network: str, totals: Tensor, parts: Parts, batches: Sequence[Any]
    ) -> None:
        self.step = step
        self.network = network
        self.batches = batches
        """Kept until the numbers are known to be sound."""
        self._names = list(parts)
        flat = [number for pair in parts.values() for number in pair]
        values = torch.cat([totals, torch.stack([x.to(totals) for x in flat])]) if flat else totals
        self._values = values.detach().to("cpu", non_blocking=True)
        self._ready = None
        if values.device.type == "cuda":
            self._ready = torch.cuda.Event()
            self._ready.record()

    def read(self) -> tuple[list[float], dict[str, tuple[float, float]]]:
        """Wait for the numbers; return the totals and the parts as (sum, count)."""
        if self._ready is not None:
            self._ready.synchronize()
        values = self._values.tolist()
        first = len(values) - 2 * len(self._names)
        parts = zip(values[first::2], values[first + 1 :: 2], strict=True)
        return values[:first], dict(zip(self._names, parts, strict=True))


class Watch:
    """The losses of one network so far."""

    def __init__(self, explode_factor: float | None) -> None:
        self._factor = explode_factor
        self._first: float | None = None
        self._recent: deque[float] = deque(maxlen=MEMORY)

    def complaint(self, *, loss: float, norm: float) -> str | None:
        """Return what is wrong with a step, or None after remembering its loss.

        Exploding is: above ``explode_factor`` times the median of the last 101, and above the
        loss of the first step, which an untrained model had.
        """
        if not math.isfinite(loss):
            return f"its loss is {loss}"
        if not math.isfinite(norm):
            return f"its loss is {loss:.6g}, but the norm of its gradient is {norm}"
        if self._first is None:
            self._first = loss
        if self._factor is not None and len(self._recent) >= ENOUGH:
            median = statistics.median(self._recent)
            if loss > max(self._factor * median, self._first):
                return f"its loss is {loss:.6g}, the median of those before {median:.6g}"
        self._recent.append(loss)
        return None

    def state(self) -> dict[str, Any]:
        """Return what `load` takes, as JSON values."""
        return {"first": self._first, "recent": list(self._recent)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._first = state["first"]
        self._recent = deque(state["recent"], maxlen=MEMORY)


def describe_terms(parts: dict[str, tuple[float, float]]) -> str:
    """Return which terms of a refused loss are not finite, or else the means of all of them."""
    means = {name: total / max(count, 1.0) for name, (total, count) in parts.items()}
    non_finite = [name for name, mean in means.items() if not math.isfinite(mean)]
    if non_finite:
        return f" (not finite: {', '.join(non_finite)})"
    if not means:
        return ""
    listed = ", ".join(f"{name} {mean:.6g}" for name, mean in means.items())
    return f" (its parts: {listed})"


def save_batches(folder: Path, outcome: Outcome, *, rank: int, world_size: int) -> None:
    """Write the micro-batches of a step: tensors as safetensors, the rest as JSON beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, batch in enumerate(outcome.batches):
        leaves = dict(flatten(batch))
        tensors = {name: leaf.cpu() for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
        others = {name: leaf for name, leaf in leaves.items() if not isinstance(leaf, Tensor)}
        number = index * world_size + rank
        save_tensors(folder / f"micro-batch-{number}.safetensors", tensors)
        plain = {
            name: leaf if isinstance(leaf, str | int | float | None) else repr(leaf)
            for name, leaf in others.items()
        }
        files.write_json(folder / f"micro-batch-{number}.json", plain)
