import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unitone.tokenizers.kmeans.units import deduplicate, expand

SEQUENCES = arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 3))


def test_collapses_neighbors_and_counts_them() -> None:
    units, durations = deduplicate(np.array([7, 7, 7, 2, 7, 7], np.int16))

    assert units.tolist() == [7, 2, 7]
    assert durations.tolist() == [3, 1, 2]
    assert units.dtype == durations.dtype == np.int32


def test_empty_stays_empty() -> None:
    units, durations = deduplicate(np.zeros(0, np.int64))

    assert units.size == durations.size == expand(units, durations).size == 0
    assert units.dtype == durations.dtype == expand(units, durations).dtype == np.int32


@given(sequence=SEQUENCES)
def test_expand_undoes_deduplicate(sequence: np.ndarray) -> None:
    units, durations = deduplicate(sequence)

    np.testing.assert_array_equal(expand(units, durations), sequence)
    assert durations.sum() == sequence.size
    assert (durations >= 1).all()
    assert (units[1:] != units[:-1]).all()


def test_duration_zero_drops_the_unit() -> None:
    assert expand(np.array([4, 5, 6]), np.array([2, 0, 1])).tolist() == [4, 4, 6]


def test_a_length_mismatch_names_both_lengths() -> None:
    with pytest.raises(ValueError, match="3 units have 2 durations"):
        expand(np.array([1, 2, 3]), np.array([1, 1]))


def test_negative_values_are_named_with_their_place() -> None:
    with pytest.raises(ValueError, match="unit -1 at position 1 is negative"):
        deduplicate(np.array([3, -1]))
    with pytest.raises(ValueError, match="duration -2 at position 0 is negative"):
        expand(np.array([3]), np.array([-2]))
    with pytest.raises(ValueError, match="unit -4 at position 0 is negative"):
        expand(np.array([-4]), np.array([2]))
