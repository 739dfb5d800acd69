"""The sample must not depend on how the corpus was walked, and must be uniform."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from unitone import seeding
from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.tokenizers.kmeans.reservoir import Reservoir

DIM = 3


def frames_of(utterance: str, count: int) -> np.ndarray:
    """Features that name their utterance and frame: [hash, index, 0]."""
    out = np.zeros((count, DIM), dtype=np.float32)
    out[:, 0] = int(utterance)
    out[:, 1] = np.arange(count)
    return out


def filled(lengths: list[int], *, capacity: int, seed: int = 0) -> Reservoir:
    reservoir = Reservoir(capacity=capacity, dim=DIM, seed=seed)
    for number, length in enumerate(lengths):
        reservoir.add(str(number), frames_of(str(number), length))
    return reservoir


lengths_of_utterances = st.lists(st.integers(0, 60), min_size=1, max_size=12)


@given(lengths=lengths_of_utterances, capacity=st.integers(1, 80), data=st.data())
def test_sample_does_not_depend_on_the_order_of_utterances(
    lengths: list[int], capacity: int, data: st.DataObject
) -> None:
    expected = filled(lengths, capacity=capacity)
    shuffled = Reservoir(capacity=capacity, dim=DIM, seed=0)
    for number in data.draw(st.permutations(range(len(lengths)))):
        shuffled.add(str(number), frames_of(str(number), lengths[number]))

    assert np.array_equal(shuffled.sample(), expected.sample())
    assert shuffled.seen == expected.seen == sum(lengths)


@given(length=st.integers(1, 200), capacity=st.integers(1, 80), data=st.data())
def test_sample_does_not_depend_on_how_an_utterance_is_cut(
    length: int, capacity: int, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, length), max_size=6))
    pieces = list(zip([0, *sorted(cuts)], [*sorted(cuts), length], strict=True))
    features = frames_of("7", length)
    whole = Reservoir(capacity=capacity, dim=DIM, seed=0)
    whole.add("7", features)
    cut = Reservoir(capacity=capacity, dim=DIM, seed=0)
    for start, stop in data.draw(st.permutations(pieces)):
        cut.add("7", features[start:stop], offset=start)

    assert np.array_equal(cut.sample(), whole.sample())


@given(lengths=lengths_of_utterances, capacity=st.integers(1, 80), data=st.data())
def test_sample_does_not_depend_on_the_number_of_workers(
    lengths: list[int], capacity: int, data: st.DataObject
) -> None:
    num_workers = data.draw(st.integers(1, 4))
    workers = [Reservoir(capacity=capacity, dim=DIM, seed=0) for _ in range(num_workers)]
    for number, length in enumerate(lengths):
        worker = data.draw(st.sampled_from(workers))
        worker.add(str(number), frames_of(str(number), length))
    for other in workers[1:]:
        workers[0].merge(other)

    expected = filled(lengths, capacity=capacity)
    assert np.array_equal(workers[0].sample(), expected.sample())
    assert workers[0].seen == expected.seen


@given(lengths=lengths_of_utterances, capacity=st.integers(1, 80))
def test_sample_holds_the_frames_of_smallest_priority(lengths: list[int], capacity: int) -> None:
    ranked = []
    for number, length in enumerate(lengths):
        generator = seeding.stream(0, "frames", str(number)).bit_generator
        ranked += [(generator.random_raw(), number, frame) for frame in range(length)]

    sample = filled(lengths, capacity=capacity).sample()

    expected = [(float(number), float(frame)) for _, number, frame in sorted(ranked)[:capacity]]
    assert [(float(row[0]), float(row[1])) for row in sample] == expected


def test_every_frame_is_as_likely_as_any_other() -> None:
    trials, length, capacity = 400, 50, 10
    counts = np.zeros(length)
    for seed in range(trials):
        reservoir = Reservoir(capacity=capacity, dim=DIM, seed=seed)
        reservoir.add("0", frames_of("0", length))
        counts[reservoir.sample()[:, 1].astype(int)] += 1

    mean = trials * capacity / length
    deviation = np.sqrt(mean * (1 - capacity / length))
    assert np.abs(counts - mean).max() < 4.5 * deviation
    chi_squared = float(((counts - mean) ** 2 / deviation**2).sum())
    assert chi_squared < 100  # 50 degrees of freedom: p < 3e-5


def test_all_frames_are_kept_when_they_fit() -> None:
    sample = filled([5, 0, 3], capacity=8).sample()
    assert sorted((int(a), int(b)) for a, b, _ in sample) == [
        *((0, t) for t in range(5)),
        *((2, t) for t in range(3)),
    ]


def test_an_empty_reservoir_gives_no_frames() -> None:
    assert Reservoir(capacity=4, dim=DIM, seed=0).sample().shape == (0, DIM)


def test_sampling_in_between_changes_nothing() -> None:
    reservoir = filled([40, 30], capacity=16)
    reservoir.sample()
    reservoir.add("2", frames_of("2", 50))
    assert np.array_equal(reservoir.sample(), filled([40, 30, 50], capacity=16).sample())


def test_memory_stays_near_the_capacity() -> None:
    reservoir = Reservoir(capacity=100_000, dim=DIM, seed=0)
    held = sum(value.nbytes for value in vars(reservoir).values() if isinstance(value, np.ndarray))
    assert held < 1.1 * 100_000 * (DIM * 4 + 8)


@pytest.mark.parametrize("capacity", [16, 1000])
def test_a_killed_pass_resumes_exactly(tmp_path: Path, capacity: int) -> None:
    reservoir = filled([40, 30], capacity=capacity)
    reservoir.metadata["utterances"] = "2"
    reservoir.save(tmp_path / "frames.safetensors")

    resumed = Reservoir.load(tmp_path / "frames.safetensors")

    assert resumed.metadata == {"utterances": "2"}
    assert (resumed.capacity, resumed.dim, resumed.seed, resumed.seen) == (capacity, DIM, 0, 70)
    resumed.add("2", frames_of("2", 50))
    assert np.array_equal(resumed.sample(), filled([40, 30, 50], capacity=capacity).sample())


def test_saved_state_is_valid_safetensors(tmp_path: Path) -> None:
    reservoir = filled([40], capacity=16)
    reservoir.save(tmp_path / "frames.safetensors")
    stored = load_file(tmp_path / "frames.safetensors")
    order = np.argsort(stored["priorities"])
    assert np.array_equal(stored["features"][order], reservoir.sample())


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    path = tmp_path / "frames.safetensors"
    filled([40], capacity=16).save(path)
    for damaged in (path.read_bytes()[:-5], b"", b"something else entirely, not a header"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"frames\.safetensors"):
            Reservoir.load(path)


def test_features_that_cannot_be_used_are_named() -> None:
    reservoir = Reservoir(capacity=4, dim=DIM, seed=0)
    with pytest.raises(ConfigError, match="width 2, the reservoir holds width 3"):
        reservoir.add("a", np.zeros((1, 2), dtype=np.float32))
    broken = np.zeros((5, DIM), dtype=np.float32)
    broken[3, 1] = np.nan
    with pytest.raises(CorpusError, match="'a': frame 103 has a NaN"):
        reservoir.add("a", broken, offset=100)
    assert reservoir.seen == 0
    with pytest.raises(ConfigError, match="offset must be at least 0, got -1"):
        reservoir.add("a", np.zeros((1, DIM), dtype=np.float32), offset=-1)


def test_reservoirs_of_different_kinds_do_not_merge() -> None:
    with pytest.raises(ConfigError, match="with seed 0 and 1"):
        filled([3], capacity=4).merge(filled([3], capacity=4, seed=1))
    with pytest.raises(ConfigError, match="capacity"):
        Reservoir(capacity=0, dim=DIM, seed=0)


@given(lengths=lengths_of_utterances, capacity=st.integers(1, 40), share=st.floats(0.01, 1.0))
def test_workers_that_send_only_what_may_stay_lose_nothing_unnoticed(
    lengths: list[int], capacity: int, share: float
) -> None:
    expected = filled(lengths, capacity=capacity)
    merged = Reservoir(capacity=capacity, dim=DIM, seed=0)
    for number, length in enumerate(lengths):
        own = Reservoir(capacity=capacity, dim=DIM, seed=0)
        own.add(str(number), frames_of(str(number), length))
        own.drop_above(share)
        merged.merge(pickle.loads(pickle.dumps(own)))

    assert merged.seen == expected.seen
    if merged.is_exact:
        assert np.array_equal(merged.sample(), expected.sample())
    assert merged.is_exact or share < 1.0


def test_a_pickled_reservoir_is_as_small_as_what_it_holds_and_can_go_on() -> None:
    large = Reservoir(capacity=1_000_000, dim=DIM, seed=0)
    large.add("1", frames_of("1", 10))

    content = pickle.dumps(large)
    assert len(content) < 2_000

    again = pickle.loads(content)
    again.add("2", frames_of("2", 10))
    large.add("2", frames_of("2", 10))
    assert np.array_equal(again.sample(), large.sample())
