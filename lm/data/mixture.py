"""What a language model trains on: stored tokens, mixed tasks, batches under a token budget.

The order is a pure function of the seed and the number of an epoch window, so that a run resumes
anywhere at once, with any number of workers and processes. A model family says what an example is,
what it costs and how examples become a batch.

Axes: U utterances.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm.data.fields import Record
from unitone.lm.data.store import TokenStore
from unitone.lm.options import MixtureConfig
from unitone.lm.tasks import Task
from unitone.train import batches

logger = logging.getLogger(__name__)

Sizes = Callable[[str], Int[np.ndarray, "U"]]
"""The sizes of a field of all utterances, in tokens or frames."""


@runtime_checkable
class Batching(Protocol):
    """How a model family makes batches of records; picklable, for worker processes."""

    def fields(self, task: int) -> Sequence[str]:
        """Return the fields that an example of task number ``task`` is made of."""
        ...

    def cost(self, task: int, sizes: Sizes) -> Int[np.ndarray, "U *two"]:
        """Return the positions an example takes, one number or two: (source, target)."""
        ...

    def example(self, task: int, record: Record, generator: np.random.Generator) -> Any:
        """Put an example together; whatever is random in it comes from ``generator``."""
        ...

    def collate(self, rows: Sequence[Sequence[tuple[int, Any]]]) -> Any:
        """Lay out rows of (task number, example), one a row unless ``capacity`` is set."""
        ...

    @property
    def longest(self) -> int:
        """Positions of an example at the most, source and target together."""
        ...

    @property
    def capacity(self) -> int | None:
        """Positions of a row that several examples share; None = one example a row."""
        ...


@dataclass(frozen=True, kw_only=True)
class Item:
    """An example before it is put together."""

    task: int
    row: int
    to: int
    """Number of the other language, -1 where the task has none."""
    draw: int
    """Seeds this example's own randomness."""


class Mixture:
    """A `unitone.train.loading.BatchSource` over a token store."""

    def __init__(
        self,
        config: MixtureConfig,
        *,
        store: TokenStore,
        tasks: Sequence[Task],
        batching: Batching,
        seed: int,
        validating: bool = False,
    ) -> None:
        """Find every task's examples; ``validating``: a task may have none, which is said.

        Raises:
            ConfigError: no utterance has what a task needs; the field is named.
        """
        self._config, self._store, self.batching = config, store, batching
        self._tasks, self._seed = tuple(tasks), seed
        self._examples: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for number, task in enumerate(self._tasks):
            try:
                self._examples[number] = self._fitting(number, task)
            except ConfigError as error:
                if not validating:
                    raise
                logger.warning("not validated: %s", error)
        self.identity = store.identity
        """Of the data it draws from."""
        self.shares = self._shares()
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def _fitting(self, number: int, task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what `examples` does, of those that are short enough."""
        rows, to, costs = examples(self._store, self.batching, number, name=task.name)
        long, most = total(costs) > self.batching.longest, self._config.max_tokens
        if long.all():
            raise ConfigError(
                f"task {task.name}: every example is longer than --context, or --max-tokens "
                f"{most}, allows"
            )
        if long.any():
            logger.warning(
                "%s: %d of %d examples are left out: longer than --context, or --max-tokens %d, "
                "allows",
                *(task.name, int(long.sum()), len(long), most),
            )
        return rows[~long], to[~long], costs[~long]

    def _shares(self) -> np.ndarray:
        counts = np.array([self._count(number) for number in range(len(self._tasks))], float)
        if self._config.mixing == "weights":
            shares = np.array([task.weight for task in self._tasks])
        elif self._config.mixing == "temperature":
            shares = counts**self._config.temperature
        else:
            shares = counts
        shares = np.where(counts > 0, shares, 0.0)
        normalized: np.ndarray = shares / max(shares.sum(), 1e-9)
        return normalized

    def _count(self, number: int) -> int:
        return len(self._examples[number][0]) if number in self._examples else 0

    def counts(self) -> dict[str, int]:
        """Return how many examples each task has that has any."""
        return {self._tasks[number].name: self._count(number) for number in self._examples}

    def plan(self, window: int) -> list[list[list[Item]]]:
        """Return the batches of an epoch window: rows of items, several in a row if packed."""
        items: list[Item] = []
        costs: list[np.ndarray] = []
        for number, columns in self._examples.items():
            picked, first = self._picked(number, window)
            rows, to, of_these = (column[picked] for column in columns)
            costs.append(of_these)
            items += [
                Item(task=number, row=int(row), to=int(other), draw=first + place)
                for place, (row, other) in enumerate(zip(rows, to, strict=True))
            ]
        generator = seeding.stream(self._seed, "batches", window)
        return self._batches(items, np.concatenate(costs), generator)

    def _batches(
        self, items: list[Item], costs: np.ndarray, generator: np.random.Generator
    ) -> list[list[list[Item]]]:
        capacity = self.batching.capacity
        if capacity is None:
            bucket = batches.bucket if costs.ndim == 1 else batches.bucket_pairs
            groups = bucket(costs, max_tokens=self._config.max_tokens, generator=generator)
            return [[[items[index]] for index in group] for group in groups]
        packed = batches.pack(costs, capacity=capacity)
        per_batch = max(1, self._config.max_tokens // capacity)
        order = generator.permutation(len(packed))
        return [
            [[items[index] for index in packed[row]] for row in order[start : start + per_batch]]
            for start in range(0, len(order), per_batch)
        ]

    def _picked(self, number: int, window: int) -> tuple[np.ndarray, int]:
        """Return which examples of a task a window holds, and the number of the first draw."""
        share = self.shares[number] * self._config.window_examples
        first, last = int(np.floor(window * share)), int(np.floor((window + 1) * share))
        count = self._count(number)
        draws = np.arange(first, last)
        epochs, places = np.divmod(draws, count)
        picked = np.empty(len(draws), np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            picked[inside] = self._order(number, int(epoch))[places[inside]]
        return picked, first

    def _order(self, number: int, epoch: int) -> np.ndarray:
        key = (number, epoch)
        if key not in self._orders:
            name = self._tasks[number].name
            generator = seeding.stream(self._seed, "order", name, epoch)
            self._orders = {old: order for old, order in self._orders.items() if old[0] != number}
            self._orders[key] = generator.permutation(self._count(number))
        return self._orders[key]

    def load(self, spec: list[list[Item]]) -> Any:
        """Put the examples of a batch together."""
        return self.batching.collate(
            [[(item.task, self._example(item)) for item in row] for row in spec]
        )

    def _example(self, item: Item) -> Any:
        name = self._tasks[item.task].name
        prompting = None
        if "prompt_units" in self.batching.fields(item.task):
            prompting = seeding.stream(self._seed, "sample", name, item.draw)
        record = self._store.record(item.row, to=item.to, prompting=prompting)
        generator = seeding.stream(self._seed, "draw", name, item.draw)
        return self.batching.example(item.task, record, generator)


def examples(
    store: TokenStore, batching: Batching, number: int, *, name: str
) -> tuple[Int[np.ndarray, "E"], Int[np.ndarray, "E"], Int[np.ndarray, "E *two"]]:
    """Return utterance, number of the other language (or -1) and cost of a task's E examples.

    Raises:
        ConfigError: no utterance has what task ``name`` needs; the field is named.
    """
    rows, to, costs = [], [], []
    for language, having in store.examples(batching.fields(number), task=name):
        cost = batching.cost(number, partial(store.sizes, to=language))
        costs.append(np.broadcast_to(cost, (len(store), *cost.shape[1:]))[having])
        rows.append(having)
        to.append(np.full(len(having), language))
    return np.concatenate(rows), np.concatenate(to), np.concatenate(costs)


def total(costs: Int[np.ndarray, "E *two"]) -> Int[np.ndarray, "E"]:
    """Return the positions of each example, source and target together."""
    return costs if costs.ndim == 1 else costs.sum(axis=1)
