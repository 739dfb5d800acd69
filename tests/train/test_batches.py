"""Buckets, packed rows and the memory model, by their invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import ConfigError
from unitone.seeding import stream
from unitone.train.batches import MemoryModel, bucket, bucket_pairs, pack

MANY = st.lists(st.integers(1, 64), max_size=200)


@given(lengths=MANY, max_tokens=st.integers(64, 400), multiple_of=st.sampled_from([1, 8]))
def test_buckets_hold_every_item_once_within_the_budget(
    lengths: list[int], max_tokens: int, multiple_of: int
) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = bucket(array, max_tokens=max_tokens, generator=stream(0), multiple_of=multiple_of)

    assert sorted(index for items in batches for index in items.tolist()) == list(range(len(array)))
    for items in batches:
        padded = -(-array[items].max() // multiple_of) * multiple_of
        assert len(items) * padded <= max_tokens


@given(
    lengths=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), max_size=200),
    max_tokens=st.integers(128, 600),
)
def test_buckets_of_pairs_hold_every_item_once_within_the_budget(
    lengths: list[tuple[int, int]], max_tokens: int
) -> None:
    array = np.array(lengths, dtype=np.int64).reshape(-1, 2)
    batches = bucket_pairs(array, max_tokens=max_tokens, generator=stream(0), multiple_of=8)
    again = bucket_pairs(array, max_tokens=max_tokens, generator=stream(0), multiple_of=8)
    assert [items.tolist() for items in batches] == [items.tolist() for items in again]
    assert sorted(index for items in batches for index in items.tolist()) == list(range(len(array)))
    for items in batches:
        padded = -(-array[items].max(axis=0) // 8) * 8
        assert len(items) * padded.sum() <= max_tokens


def test_a_pair_longer_than_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="item 1 has 72 tokens, more than the 64"):
        bucket_pairs(np.array([[8, 8], [33, 30]]), max_tokens=64, generator=stream(0))


@given(lengths=MANY, seed=st.integers(0, 5))
def test_buckets_are_a_function_of_the_generator(lengths: list[int], seed: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    first, again = (
        bucket(array, max_tokens=128, generator=stream(seed, "order")) for _ in range(2)
    )
    assert [items.tolist() for items in first] == [items.tolist() for items in again]


def test_buckets_pad_little_and_come_in_random_order() -> None:
    lengths = stream(0).integers(10, 500, size=3000)
    batches = bucket(lengths, max_tokens=4000, generator=stream(1))
    padded = sum(len(items) * (-(-lengths[items].max() // 8) * 8) for items in batches)
    assert 1 - lengths.sum() / padded < 0.03
    longest = np.array([lengths[items].max() for items in batches])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    others = bucket(lengths, max_tokens=4000, generator=stream(2))
    assert {frozenset(items.tolist()) for items in batches} != {
        frozenset(items.tolist()) for items in others
    }


@given(lengths=MANY, capacity=st.integers(64, 200))
def test_packed_rows_hold_every_item_once_within_the_capacity(
    lengths: list[int], capacity: int
) -> None:
    array = np.array(lengths, dtype=np.int64)
    rows = pack(array, capacity=capacity)

    assert sorted(index for row in rows for index in row.tolist()) == list(range(len(array)))
    assert all(array[row].sum() <= capacity for row in rows)
    fewest = -(-int(array.sum()) // capacity)
    assert len(rows) <= max(2 * fewest - 1, fewest)  # no two rows would fit into one


def test_packing_takes_the_tightest_row() -> None:
    # 6 and 5 open rows of 10; 4 fills the first, not the second; 3 and 2 fill the second
    rows = pack(np.array([2, 6, 4, 5, 3]), capacity=10)
    assert [row.tolist() for row in rows] == [[1, 2], [3, 4, 0]]


def test_packing_wastes_little() -> None:
    lengths = stream(0).integers(10, 300, size=3000)
    rows = pack(lengths, capacity=1024)
    assert 1 - lengths.sum() / (1024 * len(rows)) < 0.005


def test_an_item_that_is_too_long_is_named() -> None:
    lengths = np.array([5, 90, 7])
    with pytest.raises(ConfigError, match=r"item 1 has 90 tokens \(96 with padding\).*64"):
        bucket(lengths, max_tokens=64, generator=stream(0))
    with pytest.raises(ConfigError, match="item utt-b has 90 tokens, more than the 64"):
        pack(lengths, capacity=64, names=["utt-a", "utt-b", "utt-c"])
    with pytest.raises(ConfigError, match="item 0 is empty"):
        pack(np.array([0, 3]), capacity=64)


@given(
    base=st.floats(1e6, 1e9), per_token=st.floats(1e2, 1e5), per_pair=st.sampled_from([0.0, 3.0])
)
def test_the_memory_model_recovers_what_made_the_measurements(
    base: float, per_token: float, per_pair: float
) -> None:
    true = MemoryModel(base=base, per_token=per_token, per_pair=per_pair)
    points = [(1, 64), (4, 128), (16, 512), (2, 1024), (8, 1024)]
    fitted = MemoryModel.fit([(r, t, true.predict(rows=r, length=t)) for r, t in points])
    for rows, length in [(3, 200), (32, 1024)]:
        predicted = fitted.predict(rows=rows, length=length)
        assert predicted == pytest.approx(true.predict(rows=rows, length=length), rel=1e-6)


@given(seed=st.integers(0, 1000))
def test_the_memory_model_has_no_negative_terms(seed: int) -> None:
    rng = stream(seed)
    points = [(r, t, float(rng.uniform(1e6, 1e9))) for r, t in [(1, 64), (8, 256), (2, 512)]]
    fitted = MemoryModel.fit(points)
    assert min(fitted.base, fitted.per_token, fitted.per_pair) >= 0


@given(rows=st.integers(1, 50), length=st.integers(1, 512), budget=st.floats(2e8, 1e9))
def test_no_batch_within_the_budgeted_tokens_exceeds_the_memory(
    rows: int, length: int, budget: float
) -> None:
    model = MemoryModel(base=1e8, per_token=1e4, per_pair=30.0)
    max_tokens = model.max_tokens(budget=budget, max_length=512)
    if rows * length <= max_tokens:
        assert model.predict(rows=rows, length=length) <= budget


def test_a_budget_too_small_for_one_row_is_refused() -> None:
    model = MemoryModel(base=1e8, per_token=1e4, per_pair=30.0)
    with pytest.raises(ConfigError, match="one row of 512 tokens needs"):
        model.max_tokens(budget=1.01e8, max_length=512)
    with pytest.raises(ConfigError, match="at least 3 measurements"):
        MemoryModel.fit([(1, 1, 1.0)])
