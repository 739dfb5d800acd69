"""Means of what the steps gave between two records of metrics, over all processes."""

import time
from collections.abc import Mapping
from typing import Any

from unitone.train.distributed import World

Pair = tuple[float, float]
"""A sum and the number of items in it."""


class Meter:
    """Sums by name; names of parts of the loss are ``parts/…``, a network's begin with its name."""

    def __init__(self) -> None:
        self.sums: dict[str, Pair] = {}
        """Since the last record; a checkpoint keeps them."""
        self._items = 0.0
        self._since = time.monotonic()

    def add(self, pairs: Mapping[str, Pair], *, items: float) -> None:
        """Add the numbers of a step; ``items`` counts for the rate."""
        for name, pair in pairs.items():
            _add_to(self.sums, name, pair)
        self._items += items

    def merge(self, world: World) -> None:
        """Move the sums of all processes to the first one; all must call."""
        gathered = world.gather(self.sums)
        self.sums = {}
        for sums in gathered if world.first else []:
            for name, pair in sums.items():
                _add_to(self.sums, name, pair)

    def record(self) -> dict[str, Any]:
        """Return the means and ``items_per_second``, and begin anew."""
        now = time.monotonic()
        record: dict[str, Any] = {
            "items_per_second": round(self._items / max(now - self._since, 1e-9), 1)
        }
        for name, (total, count) in self.sums.items():
            if not count:  # a task without an example since the last record
                continue
            mean = total / count
            head, parts, tail = name.rpartition("parts/")
            if parts:
                record.setdefault(f"{head}parts", {})[tail] = mean
            else:
                record[name] = mean
        self.sums, self._items, self._since = {}, 0.0, now
        return record


def _add_to(sums: dict[str, Pair], name: str, pair: Pair) -> None:
    total, count = sums.get(name, (0.0, 0.0))
    sums[name] = (total + pair[0], count + pair[1])
