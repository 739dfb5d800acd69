"""Checks of the loss: what is beside an example doesn't change it, and it covers targets only."""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from unitone.lm.certify.setup import NETWORK, LmSetUp
from unitone.lm.data.mixture import Item, Mixture
from unitone.train.certify.setup import Finding
from unitone.train.certify.weights import hold, without_dropout
from unitone.train.loading import flatten, to_device
from unitone.train.network import Loss

CLOSE = 2e-5
"""Relative difference of sums in another order."""


class Fixed:
    """A source of the batches given, again and again."""

    def __init__(self, source: Mixture, specs: Sequence[list[list[Item]]]) -> None:
        self._source, self._specs = source, specs

    def plan(self, window: int) -> Sequence[list[list[Item]]]:
        """Return the specs."""
        return self._specs

    def load(self, spec: list[list[Item]]) -> Any:
        """Return a batch."""
        return self._source.load(spec)


class Measured:
    """The loss of batches by a network that draws nothing."""

    def __init__(self, setup: LmSetUp) -> None:
        self.network = setup.networks()[NETWORK].train()
        self.source = setup.source(setup.config.seed)

    def __call__(self, batch: Any) -> Loss:
        """Return the loss of a batch."""
        device = next(self.network.parameters()).device
        loss: Loss = self.network(to_device(batch, device))
        return loss

    def rows(self, rows: Sequence[Sequence[Item]]) -> Loss:
        """Return the loss of rows of examples."""
        return self(self.source.load([[*row] for row in rows]))

    def total(self, rows: Sequence[Sequence[Item]]) -> float:
        """Return its sum."""
        return float(self.rows(rows).total.detach())


def off(one: float, other: float) -> float:
    """Return the relative difference of two sums."""
    return abs(one - other) / max(abs(one), abs(other), 1e-9)


def accumulation(setup: LmSetUp) -> Finding:
    """Micro-batches of unequal sizes give what one batch of all of them does."""
    source = setup.source(setup.config.seed)
    items = setup.assorted
    parts = [items[:1], items[1:3], items[3:]] if len(items) > 3 else [items[:1], items[1:]]
    specs = [[[item] for item in part] for part in parts if part]
    found = []
    for name, batches in (("parts", specs), ("whole", [[row for spec in specs for row in spec]])):
        networks = setup.networks()
        hold(networks[NETWORK])
        config = replace(setup.config, ema=None, steps=1, accumulate=len(batches), precision="fp32")
        run = setup.train(
            f"accumulated-{name}", config, networks=networks, source=Fixed(source, batches)
        )
        found.append(run.curve[0])
    apart = [off(found[0][name], found[1][name]) for name in ("loss", "grad_norm")]
    return Finding(
        what="accumulating micro-batches doesn't change the step",
        figure=f"{len(specs)} micro-batches of {', '.join(str(len(s)) for s in specs)} examples "
        f"against one of all: the loss differs by {apart[0]:.2g} of itself, the gradient's norm "
        f"by {apart[1]:.2g}",
        passed=max(apart) <= 10 * CLOSE if len(specs) > 1 else None,
        cure="a loss that is averaged before it is summed: return sums and the number of items",
    )


def padding(setup: LmSetUp) -> Finding:
    """An example that is padded has the same loss."""
    measured = Measured(setup)
    without_dropout(measured.network)
    longest = max(setup.assorted, key=lambda item: _width(measured.source, item))
    worst, narrow, wide, tried = 0.0, 0, 0, 0
    for items in setup.items.values():
        alone = measured.source.load([[items[0]]])
        padded = _first_row(measured.source.load([[items[0]], [longest]]), rows=2)
        if padded is None or _size(padded) <= _size(alone):
            continue
        losses = [measured(batch) for batch in (alone, padded)]
        if int(losses[0].count) != int(losses[1].count):
            continue  # its rows aren't the batch's
        tried += 1
        narrow, wide = max(narrow, _size(alone)), max(wide, _size(padded))
        worst = max(worst, off(*(float(loss.total.detach()) for loss in losses)))
    return Finding(
        what="padding doesn't change the loss",
        figure=f"an example of each of {tried} tasks, {narrow} numbers wide and padded to {wide}: "
        f"its loss differs by {worst:.2g} of itself"
        if tried
        else "no batch whose rows can be taken out of it",
        passed=worst <= CLOSE if tried else None,
        cure="padding that is attended to, normalized with (batch norm), convolved or counted; or "
        "a target that sees what comes after it",
    )


def _width(source: Mixture, item: Item) -> int:
    return _size(source.load([[item]]))


def _size(batch: Any) -> int:
    return sum(leaf.numel() for _, leaf in flatten(batch) if isinstance(leaf, Tensor))


def _first_row(batch: Any, *, rows: int) -> Any:
    """Return a batch of its first row, as wide as before; None where it has no rows."""
    if isinstance(batch, Tensor):
        return batch[:1] if batch.ndim and len(batch) == rows else batch
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        cut = {
            field.name: _first_row(getattr(batch, field.name), rows=rows)
            for field in dataclasses.fields(batch)
            if field.init
        }
        return dataclasses.replace(batch, **cut)
    if isinstance(batch, dict):
        return {name: _first_row(value, rows=rows) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(_first_row(value, rows=rows) for value in batch)
    return batch


def neighbours(setup: LmSetUp) -> Finding:
    """The loss of a batch is the sum of the losses of its examples."""
    measured = Measured(setup)
    hold(measured.network)
    items = setup.assorted
    together = measured.rows([[item] for item in items])
    apart = [measured.rows([[item]]) for item in items]
    alone = sum(float(loss.total.detach()) for loss in apart)
    counts = int(together.count), sum(int(loss.count) for loss in apart)
    difference = off(float(together.total.detach()), alone)
    return Finding(
        what="what else is in a batch doesn't change the loss",
        figure=f"{len(items)} examples of {len(setup.items)} tasks in one batch and one by one: "
        f"the sums differ by {difference:.2g}, {counts[0]} and {counts[1]} targets",
        passed=difference <= CLOSE and counts[0] == counts[1],
        cure="something that mixes rows: statistics over the batch, a mean over unequal rows",
    )


def packing(setup: LmSetUp) -> Finding:
    """Examples that share a row have the losses they have alone."""
    what = "packing doesn't change the loss"
    capacity = setup.made.batching.capacity
    if capacity is None:
        return Finding(what=what, figure="this set-up doesn't pack", passed=None)
    measured = Measured(setup)
    hold(measured.network)
    worst, most = 0.0, 0
    for spec in setup.source(setup.config.seed).plan(0)[:4]:
        items = [item for row in spec for item in row]
        most = max(most, *(len(row) for row in spec))
        worst = max(worst, off(measured.total(spec), measured.total([[one] for one in items])))
    return Finding(
        what=what,
        figure=f"rows of {most} examples against one example a row: the sums differ by {worst:.2g}",
        passed=worst <= CLOSE if most > 1 else None,
        cure="positions that aren't counted from each example's start, or a mask that lets one "
        "example see another",
    )
