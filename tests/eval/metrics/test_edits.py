from functools import cache

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitone.eval.metrics.edits import Edits, align, confusions, count_edits

WORDS = st.lists(st.sampled_from("abc"), max_size=7)


def distance(left: list[str], right: list[str]) -> int:
    """Levenshtein's recursion, as its definition has it."""

    @cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = left[i - 1] == right[j - 1]
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (not same))

    return of(len(left), len(right))


@given(WORDS, WORDS)
def test_counts_are_a_shortest_way_of_the_right_lengths(left: list[str], right: list[str]) -> None:
    edits = count_edits(left, right)
    assert edits.errors == distance(left, right)
    assert edits.reference == len(left)
    assert edits.hypothesis == len(right)
    assert min(edits.hits, edits.substitutions, edits.deletions, edits.insertions) >= 0


@given(WORDS, WORDS)
def test_an_alignment_spells_both_sides_and_has_the_counted_edits(
    left: list[str], right: list[str]
) -> None:
    steps = align(left, right)
    assert [step.reference for step in steps if step.reference is not None] == left
    assert [step.hypothesis for step in steps if step.hypothesis is not None] == right
    kinds = [step.kind for step in steps]
    assert count_edits(left, right) == Edits(
        hits=kinds.count("hit"),
        substitutions=kinds.count("sub"),
        deletions=kinds.count("del"),
        insertions=kinds.count("ins"),
    )
    assert all((step.kind == "hit") == (step.reference == step.hypothesis) for step in steps)


@given(WORDS.filter(bool), WORDS)
def test_the_split_into_kinds_is_that_of_jiwer(left: list[str], right: list[str]) -> None:
    theirs = jiwer.process_words(" ".join(left), " ".join(right))
    assert count_edits(left, right) == Edits(
        hits=theirs.hits,
        substitutions=theirs.substitutions,
        deletions=theirs.deletions,
        insertions=theirs.insertions,
    )


def test_a_rate_is_errors_per_reference_item() -> None:
    one = Edits(hits=1, substitutions=2, deletions=3, insertions=4)
    assert one.rate == pytest.approx(9 / 6)


def test_an_empty_reference_has_no_rate() -> None:
    assert Edits(insertions=2).rate != Edits(insertions=2).rate  # NaN


def test_confusions_count_what_became_of_what() -> None:
    found = confusions([align(["a", "b"], ["a", "c"]), align(["b"], []), align([], ["d"])])
    assert found == {("b", "c"): 1, ("b", None): 1, (None, "d"): 1}
