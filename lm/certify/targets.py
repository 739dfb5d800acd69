"""Checks of what is learnt: targets only, all tasks' alike, and none that is already seen.

The first two look at a network whose weights are all zero. Its predictions are uniform, so the loss
of an example is known: the number of its targets times the same number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unitone import seeding
from unitone.lm.certify.losses import CLOSE, Measured
from unitone.lm.certify.setup import NETWORK, LmSetUp
from unitone.lm.data.mixture import Item
from unitone.lm.tasks import Task
from unitone.train.certify.setup import Finding
from unitone.train.certify.weights import hold

SAME = 1e-6
"""Difference of log-probabilities in batches of the same shape."""
AT_ONCE = "this family's losses are not sums over targets, one after the other"
"""What is found of a trainable module that says ``by_target = False``."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The uniform loss of a record."""

    task: str
    given: int
    """Size of the condition: tokens, frames."""
    said: int | None
    """Size of the output, where it is a sequence."""
    total: float
    count: int
    parts: dict[str, float]
    """Sums by the name of the part."""


def by_target(setup: LmSetUp) -> bool:
    """Tell whether each target has a loss of its own, made from what comes before it."""
    return bool(getattr(setup.networks()[NETWORK], "by_target", True))


class Records:
    """Records of tasks, and batches of them without augmentation."""

    def __init__(self, setup: LmSetUp) -> None:
        self.setup, self.batching = setup, setup.made.plain
        self.tasks = setup.tasks

    def of(self, number: int) -> list[dict[str, Any]]:
        """Return the records of a task's shortest, middle and longest example."""
        items = self.setup.items[number]
        places = dict.fromkeys((0, len(items) // 2, len(items) - 1)) if items else {}
        return [self._record(items[place]) for place in places]

    def _record(self, item: Item) -> dict[str, Any]:
        fields = self.batching.fields(item.task)
        prompting = seeding.stream(0, "certify") if "prompt_units" in fields else None
        found: dict[str, Any] = self.setup.made.train.record(
            item.row, to=item.to, prompting=prompting
        )
        return found

    def batch(self, number: int, record: dict[str, Any]) -> Any:
        """Return the batch of one record."""
        drawn = seeding.stream(0, "certify", "example")
        return self.batching.collate([[(number, self.batching.example(number, record, drawn))]])


class Uniform:
    """Losses of records by a network that predicts nothing."""

    def __init__(self, setup: LmSetUp) -> None:
        self.records = Records(setup)
        self._measured = Measured(setup)
        hold(self._measured.network)
        with torch.no_grad():
            for parameter in self._measured.network.parameters():
                parameter.zero_()

    def sample(self, number: int, record: dict[str, Any]) -> Sample:
        """Return what a record costs."""
        task = self.records.tasks[number]
        loss = self._measured(self.records.batch(number, record))
        output = record[task.output]
        return Sample(
            task=task.name,
            given=sum(_size(record[name]) for name in task.inputs),
            said=_size(output) if isinstance(output, np.ndarray) else None,
            total=float(loss.total.detach()),
            count=int(loss.count),
            parts={name: float(value) for name, (value, _) in loss.parts.items()},
        )

    def varied(self, number: int) -> Iterator[tuple[str, Sample, Sample]]:
        """Yield samples that differ in the condition or the output alone, and which of them."""
        task = self.records.tasks[number]
        first, *others = self.records.of(number)
        base = self.sample(number, first)
        given = [name for name in task.inputs if isinstance(first[name], np.ndarray)]
        for other in others:
            if given and task.output not in given:
                yield "given", base, self.sample(number, first | {n: other[n] for n in given})
            if isinstance(first[task.output], np.ndarray) and task.output not in given:
                changed = first | {task.output: other[task.output]}
                yield "said", base, self.sample(number, changed)

    @cached_property
    def all(self) -> list[tuple[str, Sample, Sample]]:
        """What `varied` yields, of every task."""
        return [one for number in self.records.setup.items for one in self.varied(number)]


def _size(value: Any) -> int:
    return int(value.size) if isinstance(value, np.ndarray) else 1


def _rest(samples: list[Sample], tasks: list[Task]) -> list[float]:
    """Return what each total has beside its tasks' parts and a multiple of the other terms."""
    own = {task.name for task in tasks}
    terms = sorted({name for one in samples for name in one.parts} - own)
    rest = np.array(
        [one.total - sum(v for n, v in one.parts.items() if n in own) for one in samples]
    )
    if terms:
        values = np.array([[one.parts.get(name, 0.0) for name in terms] for one in samples])
        weights, *_ = np.linalg.lstsq(values, rest, rcond=None)
        rest = rest - values @ weights
    found: list[float] = rest.tolist()
    return found


def targets(setup: LmSetUp) -> Finding:
    """The loss covers the targets, all of them and nothing else."""
    what = "the loss covers targets only"
    if not by_target(setup):
        return Finding(what=what, figure=AT_ONCE, passed=None)
    uniform = Uniform(setup)
    pairs = uniform.all
    samples = [one for _, a, b in pairs for one in (a, b)]
    rest = _rest(samples, setup.tasks)
    beside = max(
        (abs(r) / max(one.total, 1e-9) for r, one in zip(rest, samples, strict=True)), default=0.0
    )
    longer, moved, counted, more, wrong = 0, 0.0, 0, 0, 0
    for which, one, other in pairs:
        if which == "given":
            longer = max(longer, abs(other.given - one.given))
            moved = max(moved, abs(other.parts[one.task] - one.parts[one.task]) / one.total)
            counted = max(counted, abs(other.count - one.count))
        elif one.said is not None and other.said is not None:
            more = max(more, abs(other.said - one.said))
            wrong += other.count - one.count != other.said - one.said
    return Finding(
        what=what,
        figure=f"conditions up to {longer} longer change the loss of uniform predictions by "
        f"{moved:.2g} of itself and the targets by {counted}; outputs up to {more} longer count "
        f"wrong {wrong} times; {beside:.2g} of the loss is neither targets nor a part by name",
        passed=max(moved, beside) <= CLOSE and not counted and not wrong if pairs else None,
        cure="a mask that is off by some positions, or a term (label smoothing) over positions "
        "without a target; a term that isn't of the targets is a part of its own",
    )


def tasks(setup: LmSetUp) -> Finding:
    """A target of one task weighs as much as a target of another."""
    what = "a target of another task weighs the same"
    if not by_target(setup):
        return Finding(what=what, figure=AT_ONCE, passed=None)
    uniform = Uniform(setup)
    samples = [
        uniform.sample(number, record)
        for number in setup.items
        for record in uniform.records.of(number)
    ]
    rest = _rest(samples, setup.tasks)
    weights: dict[str, float] = {}
    costs: dict[str, float] = {}
    of_codes = {task.name for task in setup.tasks if task.output == "codes"}
    for one, beside in zip(samples, rest, strict=True):
        part = one.parts[one.task]
        weights[one.task] = (part + beside) / max(part, 1e-9)
        if one.task not in of_codes:  # of finer levels, a codebook is chosen from, not all tokens
            costs[one.task] = part / one.count
    apart = max(weights.values()) / min(weights.values()) - 1
    if costs:
        apart = max(apart, max(costs.values()) / min(costs.values()) - 1)
    return Finding(
        what=what,
        figure=", ".join(f"{name} {weight:.4f}" for name, weight in weights.items())
        + f"; a uniform prediction costs the same up to {apart:.2g}",
        passed=apart <= CLOSE if len(weights) > 1 else None,
        cure="weights of tasks belong into the mixture (which examples come), not into the loss",
    )


class _Predictions(TorchDispatchMode):
    """Keeps the log-probabilities that are computed, a row for each prediction."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._log_softmax.default and out.ndim > 1:
            self.found.append(out.detach().flatten(0, -2))
        return out


def causality(setup: LmSetUp) -> Finding:
    """What is predicted doesn't depend on the target itself, or on what comes after it."""
    what = "no prediction has seen its target"
    if not by_target(setup):
        return Finding(what=what, figure=AT_ONCE, passed=None)
    records, measured = Records(setup), Measured(setup)
    hold(measured.network)
    worst, last, compared = 0.0, 0.0, 0
    for number in setup.items:
        task = setup.tasks[number]
        record = records.of(number)[-1]
        output = record[task.output]
        if not isinstance(output, np.ndarray) or not np.issubdtype(output.dtype, np.integer):
            continue
        changed = _other_end(output)
        if changed is None:
            continue
        found = []
        for one in (record, record | {task.output: changed}):
            with _Predictions() as predictions:
                measured(records.batch(number, one))
            found.append(predictions.found)
        for a, b in zip(*found, strict=True):
            apart = (a - b).abs().flatten(1).max(dim=1).values
            if len(apart) > 1:
                compared += len(apart) - 1
                worst = max(worst, float(apart[:-1].max()))
                last = max(last, float(apart[-1]))
    return Finding(
        what=what,
        figure=f"the last token of an output is another: {compared} predictions up to it move by "
        f"{worst:.2g}, the one after it by {last:.2g}",
        passed=worst <= SAME if compared else None,
        cure="the mask of the attention, a convolution without causal padding, or targets that "
        "aren't shifted",
    )


def _other_end(output: np.ndarray) -> np.ndarray | None:
    """Return an output with another token at its end, of those that it has; None if it has one."""
    last = output[..., -1].reshape(-1)[-1]
    of_level = output.reshape(-1, output.shape[-1])[-1]
    others = of_level[of_level != last]
    if not len(others):
        return None
    changed = output.copy()
    changed.reshape(-1, output.shape[-1])[-1, -1] = others[0]
    return changed
