"""The order of batches: the same from any position, for any number of workers and processes."""

from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unitone.errors import CorpusError
from unitone.train.loading import Position, batches, flatten, to_device, walk


class Windows:
    """Windows of 3, 4, 5, 3, … batches; a batch is its own name."""

    def plan(self, window: int) -> list[tuple[int, int]]:
        return [(window, index) for index in range(3 + window % 3)]

    def load(self, spec: tuple[int, int]) -> dict[str, Tensor]:
        return {"spec": torch.tensor(spec)}


class Broken(Windows):
    def load(self, spec: tuple[int, int]) -> dict[str, Tensor]:
        raise CorpusError("utterance 7 is cut off")


def named(loaded: list[tuple[dict[str, Tensor], Position]]) -> list[tuple[Any, Position]]:
    return [(batch["spec"].tolist(), after) for batch, after in loaded]


@given(per_step=st.integers(1, 7), steps=st.integers(1, 9))
def test_going_on_from_a_position_changes_nothing(per_step: int, steps: int) -> None:
    through = list(islice(walk(Windows(), start=Position(), per_step=per_step), 2 * steps))
    position = through[steps - 1][1]
    rest = list(islice(walk(Windows(), start=position, per_step=per_step), steps))
    assert rest == through[steps:]
    names = [spec for specs, _ in through for spec in specs]
    assert names == sorted(names)


def test_a_position_keeps_its_name_on_disk() -> None:
    position = Position(window=3, index=5)
    assert position.saved() == {"round": 3, "index": 5}
    assert Position.of(position.saved()) == position


@given(world_size=st.sampled_from([1, 2, 3]))
def test_processes_share_the_batches_of_a_step(world_size: int) -> None:
    alone = [
        spec
        for specs, _ in islice(walk(Windows(), start=Position(), per_step=6), 5)
        for spec in specs
    ]
    shared: list[Any] = [None] * 30
    for rank in range(world_size):
        loaded = batches(Windows(), start=Position(), per_step=6, rank=rank, world_size=world_size)
        shared[rank::world_size] = [
            tuple(spec) for spec, _ in named(list(islice(loaded, 30 // world_size)))
        ]
    assert shared == alone


def test_workers_load_the_same_in_the_same_order() -> None:
    here = named(list(islice(batches(Windows(), start=Position(), per_step=2), 12)))
    there = named(list(islice(batches(Windows(), start=Position(), per_step=2, workers=2), 12)))
    assert there == here


def test_an_error_in_a_worker_is_the_same_sentence() -> None:
    for workers in (0, 1):
        loaded = batches(Broken(), start=Position(), per_step=1, workers=workers)
        with pytest.raises(CorpusError, match=r"^utterance 7 is cut off$"):
            next(loaded)


class Pair(NamedTuple):
    left: Tensor
    right: str


@dataclass(frozen=True)
class Record:
    pair: Pair
    lists: list[Tensor]
    table: dict[str, Tensor]


def test_every_kind_of_batch_moves_and_is_named() -> None:
    tensor = torch.arange(3)
    record = Record(Pair(tensor, "x"), [tensor], {"y": tensor})
    moved = to_device(record, torch.device("meta"))
    assert isinstance(moved.pair, Pair)
    assert moved.pair.right == "x"
    found = {moved.pair.left.device.type, moved.lists[0].device.type, moved.table["y"].device.type}
    assert found == {"meta"}
    assert [name for name, _ in flatten(record)] == [
        *("batch.pair.0", "batch.pair.1", "batch.lists.0", "batch.table.y")
    ]
