import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import CorpusError
from unitone.eval.metrics.accuracy import (
    NO_LABEL,
    compare_accuracy,
    mcnemar,
    score_accuracy,
    wilson,
)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_bounds_are_where_the_share_is_just_not_rejected(case: tuple[int, int]) -> None:
    right, total = case
    found = wilson(right, total)
    assert found is not None
    assert 0.0 <= found.low <= right / total <= found.high <= 1.0
    for bound in (found.low, found.high):
        if 0.0 < bound < 1.0:
            error = math.sqrt(bound * (1 - bound) / total)
            assert abs(right / total - bound) == pytest.approx(1.959963984540054 * error)


def test_published_wilson_intervals() -> None:
    """Newcombe (1998), table I, method 3."""
    for right, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(right, total)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def tosses_as_uneven(one: int, two: int) -> float:
    """Sum the chances of all outcomes of fair tosses that are no likelier than this one."""
    total = one + two
    ways = [math.comb(total, heads) for heads in range(total + 1)]
    return float(sum(way for way in ways if way <= ways[one]) / (1 << total))


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_an_exact_binomial_test(one: int, two: int) -> None:
    assert mcnemar(one, two) == pytest.approx(tosses_as_uneven(one, two))
    assert mcnemar(one, two) == mcnemar(two, one)


def test_mcnemar_of_thousands() -> None:
    assert mcnemar(2550, 2450) == pytest.approx(tosses_as_uneven(2550, 2450))


@pytest.mark.parametrize("wrong", [1100, 3000, 10**5])
def test_the_chance_of_no_outcome_is_zero(wrong: int) -> None:
    assert 0.0 < mcnemar(wrong, 0) < 1e-300
    assert 0.0 < compare_accuracy(["a"] * wrong, ["a"] * wrong, [None] * wrong).p_value < 1e-300


def test_a_matrix_by_hand() -> None:
    score = score_accuracy(["en", "en", "de", "fr"], ["en", "de", "de", "nl"])
    assert score.labels == ("de", "en", "fr", "nl")
    assert score.confusion.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert score.accuracy == 0.5
    assert score.balanced_accuracy == pytest.approx((1 + 0.5 + 0) / 3)
    german, english, french, dutch = score.classes
    assert (german.precision, german.recall, german.f1) == pytest.approx((0.5, 1.0, 2 / 3))
    assert (english.precision, english.recall) == (1.0, 0.5)
    assert math.isnan(french.precision)
    assert math.isnan(dutch.recall)
    assert score.to_json()["classes"]["fr"]["precision"] is None


def test_no_answer_is_never_right() -> None:
    score = score_accuracy(["en", NO_LABEL], [None, None])
    assert score.right == 0
    assert score.accuracy == 0.0


def test_a_comparison_counts_only_where_they_differ() -> None:
    meant = ["a"] * 20
    better, worse = ["a"] * 18 + ["b"] * 2, ["a"] * 10 + ["b"] * 10
    found = compare_accuracy(meant, better, worse)
    assert found.difference == pytest.approx(0.4)
    assert found.p_value == mcnemar(8, 0)
    assert found.interval is not None
    assert 0 < found.interval.low < 0.4 < found.interval.high
    same = compare_accuracy(meant, better, better)
    assert (same.difference, same.p_value) == (0.0, 1.0)


def test_no_labels_are_an_error() -> None:
    with pytest.raises(CorpusError, match="0 references"):
        score_accuracy([], [])
