import math
from itertools import product

import numpy as np
import pytest
from jaxtyping import Float, Num

from unitone import seeding
from unitone.errors import ConfigError
from unitone.eval import statistics as bootstrap
from unitone.eval.statistics import Interval, Resampling, clustered, compare, interval


def ratio(sums: Num[np.ndarray, "R 2"]) -> Float[np.ndarray, " R"]:
    undefined = np.full(len(sums), np.nan)
    return np.asarray(np.divide(sums[:, 0], sums[:, 1], out=undefined, where=sums[:, 1] > 0))


def counts(rows: int, *, rate: float = 0.2, name: str = "x") -> Num[np.ndarray, "N 2"]:
    generator = seeding.stream(0, name)
    words = generator.integers(3, 10, rows)
    return np.stack([generator.binomial(words, rate), words], axis=1)


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    flips = np.stack([seeding.stream(1, "flips").integers(2, size=900), np.ones(900, int)], axis=1)
    mean = flips[:, 0].mean()
    reach = 1.96 * math.sqrt(mean * (1 - mean) / 900)
    found = interval(flips, ratio, resampling=Resampling(resamples=20_000))
    assert found is not None
    assert found.low == pytest.approx(mean - reach, abs=2e-3)
    assert found.high == pytest.approx(mean + reach, abs=2e-3)


def test_the_interval_covers_the_truth_about_95_times_of_100() -> None:
    hits = 0
    for trial in range(300):
        found = interval(counts(150, name=f"trial {trial}"), ratio)
        assert found is not None
        hits += found.low <= 0.2 <= found.high
    assert 0.91 <= hits / 300 <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    table = counts(50)
    one, two = (interval(table, ratio, resampling=Resampling(seed=3)) for _ in range(2))
    assert one == two
    assert one != interval(table, ratio, resampling=Resampling(seed=4))


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    table, other = counts(40), counts(40, name="y")
    whole = interval(table, ratio), compare(table, other, ratio)
    monkeypatch.setattr(bootstrap, "_BLOCK", 40 * 64)
    assert interval(table, ratio) == whole[0]
    assert compare(table, other, ratio) == whole[1]


def test_one_row_has_no_interval() -> None:
    assert interval(counts(1), ratio) is None


def test_resamples_without_reference_words_are_left_out() -> None:
    assert interval(np.array([[0, 0], [1, 4]]), ratio) == Interval(low=0.25, high=0.25)


def test_the_p_value_is_that_of_all_swaps() -> None:
    """Against the exact randomization test: every one of the 2^n swaps of ten utterances."""
    one, two = counts(10, rate=0.1), counts(10, rate=0.3, name="y")
    two[:, 1] = one[:, 1]
    gaps = (one - two)[:, 0]
    observed = abs(gaps.sum())
    exact = np.mean([abs(np.dot(signs, gaps)) >= observed for signs in product((1, -1), repeat=10)])
    found = compare(one, two, ratio, resampling=Resampling(swaps=50_000))
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert found.difference == pytest.approx(gaps.sum() / one[:, 1].sum())


def test_p_values_are_uniform_under_the_null() -> None:
    values = []
    for trial in range(200):
        one, two = counts(60, name=f"a{trial}"), counts(60, name=f"b{trial}")
        two[:, 1] = one[:, 1]
        values.append(compare(one, two, ratio, resampling=Resampling(swaps=500)).p_value)
    assert np.mean(np.array(values) < 0.05) <= 0.1
    assert 0.35 <= np.mean(values) <= 0.65


def test_the_same_system_differs_by_nothing() -> None:
    table = counts(30)
    found = compare(table, table, ratio)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.interval == Interval(low=0.0, high=0.0)


def test_the_paired_interval_is_narrower_than_the_sum_of_both() -> None:
    one = counts(200)
    two = one + np.array([1, 0]) * (np.arange(200) % 10 == 0)[:, None]
    alone, paired = interval(one, ratio), compare(one, two, ratio).interval
    assert alone is not None
    assert paired is not None
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_utterances_drawn_together_give_a_wider_interval() -> None:
    speakers = np.repeat(np.arange(20), 10)
    rates = seeding.stream(0, "speakers").uniform(0, 0.6, 20)[speakers]
    table = np.stack([(rates * 10).round().astype(int), np.full(200, 10)], axis=1)
    alone = interval(table, ratio)
    grouped = interval(clustered(table, speakers.tolist()), ratio)
    assert alone is not None
    assert grouped is not None
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 100 resamples"):
        Resampling(resamples=10)
