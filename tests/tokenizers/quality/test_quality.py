import doctest
import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unitone.errors import CorpusError
from unitone.tokenizers.quality import quality
from unitone.tokenizers.quality.agreement import (
    LabelTable,
    entropy,
    frame_labels,
    label_quality,
    spread_characters,
)
from unitone.tokenizers.quality.quality import QualityReport, UtteranceUnits, bitrate, measure

TABLES = arrays(
    np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 9)
)


def utterance(units: list[int], **more: object) -> UtteranceUnits:
    values: dict[str, object] = {"id": "u", "num_samples": 320 * len(units)}
    return UtteranceUnits(units=np.array(units, np.int32), **(values | more))  # type: ignore[arg-type]


def measured(*utterances: UtteranceUnits, k: int = 4, subwords: int | None = None) -> QualityReport:
    return measure(utterances, k=k, frame_rate=50.0, inertia=None, num_subwords=subwords)


def test_fifty_units_a_second_of_2000_cost_548_bits() -> None:
    assert bitrate(50.0, 2000) == pytest.approx(548.29, abs=0.01)
    assert bitrate(50.0, 500) == pytest.approx(448.29, abs=0.01)
    assert bitrate(50.0, 1024) == 500.0
    assert not doctest.testmod(quality).failed


def test_streams_count_the_tokens_of_each_form() -> None:
    report = measured(
        utterance([0, 0, 1, 1, 1], subwords=1), utterance([2, 2, 2, 2, 0], subwords=2), subwords=16
    )
    units, deduplicated, subwords = report.streams

    assert report.seconds == 0.2
    assert (units.tokens, deduplicated.tokens, subwords.tokens) == (10, 4, 3)
    assert (units.tokens_per_second, units.bits_per_second) == (50.0, 100.0)
    assert (deduplicated.tokens_per_second, deduplicated.bits_per_second) == (20.0, 40.0)
    assert subwords.tokens_per_second == pytest.approx(15.0)
    assert subwords.bits_per_second == pytest.approx(60.0)


def test_usage_entropy_and_perplexity() -> None:
    report = measured(utterance([0, 0, 1, 1, 3, 3]))

    assert report.usage == (2, 2, 0, 2)
    assert report.used == 3
    assert report.entropy_bits == pytest.approx(math.log2(3))
    assert report.perplexity == pytest.approx(3.0)
    assert measured(utterance([1, 1])).perplexity == 1.0


def test_runs_and_rates_fall_into_their_bins() -> None:
    long = [3] * 60
    report = measured(utterance([0, 1, 1, 2, 2]), utterance(long))

    assert report.run_length.counts[:2] == (1, 2)
    assert report.run_length.counts[-1] == 1  # 60 frames are 40 and more
    assert report.run_length.mean == pytest.approx(65 / 4)
    assert report.run_length.std == pytest.approx(np.std([1, 2, 2, 60]))
    rates = np.array([3 / 0.1, 1 / 1.2])
    assert report.units_per_second.mean == pytest.approx(rates.mean())
    assert report.units_per_second.counts[24] == report.units_per_second.counts[0] == 1
    assert sum(report.units_per_second.counts) == 2


def test_a_perfect_clustering_tells_everything() -> None:
    result = label_quality(np.array([[5, 0, 0], [0, 3, 2]]))

    assert result.pnmi == pytest.approx(1.0)
    assert result.label_purity == 1.0
    assert result.cluster_purity == 0.8
    assert result.label_entropy == pytest.approx(math.log(2))


def test_independent_units_tell_nothing() -> None:
    result = label_quality(np.array([[4, 8], [2, 4]]))

    assert result.pnmi == pytest.approx(0.0, abs=1e-12)
    assert result.label_purity == pytest.approx(12 / 18)
    assert result.cluster_purity == pytest.approx(12 / 18)


def test_one_label_alone_leaves_nothing_to_know() -> None:
    assert label_quality(np.array([[4, 8]])).pnmi == 0.0


@given(table=TABLES.filter(lambda table: table.sum() > 0))
def test_purity_and_pnmi_agree_with_their_definitions(table: np.ndarray) -> None:
    """Second formula: sums over p(y, z), as the definitions are written."""
    p = table / table.sum()
    p_y, p_z = p.sum(axis=1), p.sum(axis=0)
    information = sum(
        p[y, z] * math.log(p[y, z] / (p_y[y] * p_z[z]))
        for y in range(len(p_y))
        for z in range(len(p_z))
        if p[y, z]
    )
    h_y = -sum(value * math.log(value) for value in p_y if value)
    result = label_quality(table)

    assert result.pnmi * result.label_entropy == pytest.approx(information, abs=1e-9)
    assert result.label_entropy == pytest.approx(h_y, abs=1e-9)
    assert result.label_purity == pytest.approx(sum(max(p[:, z]) for z in range(len(p_z))))
    assert result.cluster_purity == pytest.approx(sum(max(p[y]) for y in range(len(p_y))))
    assert -1e-9 <= result.pnmi <= 1 + 1e-9


@pytest.mark.parity
def test_mutual_information_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, size=500)
    units = (labels * 3 + rng.integers(0, 6, size=500)) % 20
    table = np.zeros((7, 20), np.int64)
    np.add.at(table, (labels, units), 1)
    result = label_quality(table)

    assert result.pnmi * result.label_entropy == pytest.approx(
        metrics.mutual_info_score(labels, units)
    )


@given(table=TABLES.filter(lambda table: table.sum() > 0))
def test_entropy_lies_between_zero_and_the_log_of_the_cells(table: np.ndarray) -> None:
    assert 0 <= entropy(table) <= math.log(table.size) + 1e-9


def test_a_frame_takes_the_label_at_its_center() -> None:
    labels = (("B", 0.05, 0.09), ("AH0", 0.011, 0.05))  # frame centers: 10, 30, 50, 70, 90 ms

    assert frame_labels(labels, num_frames=5, frame_rate=50.0) == [None, "AH", "B", "B", None]
    assert frame_labels((), num_frames=2, frame_rate=50.0) == [None, None]


def test_only_arpabet_stress_is_removed_from_symbols() -> None:
    symbols = ["AH0", "AH", "a1", "XAH0", "T2"]
    labels = tuple((symbol, i / 50, (i + 1) / 50) for i, symbol in enumerate(symbols))
    assert frame_labels(labels, num_frames=5, frame_rate=50.0) == ["AH", "AH", "a1", "XAH0", "T2"]


def test_phone_measures_use_labeled_frames_only() -> None:
    labels = (("A", 0.0, 0.04), ("B", 0.04, 0.08))
    report = measured(utterance([0, 0, 1, 1, 2], labels=labels), utterance([3, 3]))

    assert report.phones is not None
    assert report.phones.frames == 4
    assert report.phones.pnmi == pytest.approx(1.0)
    assert report.phone_symbols == ("A", "B")
    assert report.phone_table.tolist() == [[2, 0, 0, 0], [0, 2, 0, 0]]
    assert report.characters is report.characters_by_chance is None
    assert measured(utterance([1])).phones is None


def test_top_units_say_where_each_phone_went() -> None:
    labels = (("A", 0.0, 0.08), ("B", 0.08, 0.2))
    report = measured(utterance([0, 0, 0, 1, 1, 1, 1, 1, 1, 2], labels=labels))
    first, second = report.top_units()

    assert (first["phone"], first["units"], first["share"]) == ("B", [1, 2], 0.6)
    assert first["shares"] == pytest.approx([5 / 6, 1 / 6])
    assert first["found"] == 1.0
    assert (second["phone"], second["units"], second["found"]) == ("A", [0, 1], 0.75)


def test_characters_are_spread_evenly_without_spaces_and_case() -> None:
    assert spread_characters("A b!", num_frames=5) == ["a", "a", "a", "b", "b"]
    assert spread_characters("abc", num_frames=3) == ["a", "b", "c"]
    assert spread_characters(" -! ", num_frames=3) == []
    assert spread_characters("abc", num_frames=0) == []


def talk(num_utterances: int, *, informed: bool) -> Iterator[UtteranceUnits]:
    """Utterances whose units spell their text, or another text."""
    rng = np.random.default_rng(0)
    for number in range(num_utterances):
        spoken = rng.integers(0, 4, size=12)
        written = spoken if informed else rng.integers(0, 4, size=12)
        yield utterance(
            np.repeat(spoken, 3).tolist(),
            id=str(number),
            text="".join("abcd"[one] for one in written),
        )


@pytest.mark.parametrize("num_utterances", [2, 60, 257, 258, 600])  # around the window of 256
def test_chance_is_what_shuffled_texts_reach(num_utterances: int) -> None:
    report = measured(*talk(num_utterances, informed=True))

    assert report.characters is not None
    assert report.characters_by_chance is not None
    assert report.characters.pnmi == pytest.approx(1.0)
    assert report.characters.frames == report.characters_by_chance.frames == num_utterances * 36
    assert report.characters_by_chance.pnmi < 0.7
    if num_utterances > 100:
        assert report.characters_by_chance.pnmi < 0.01


def test_units_that_know_nothing_are_at_chance() -> None:
    report = measured(*talk(300, informed=False))

    assert report.characters is not None
    assert report.characters_by_chance is not None
    assert report.characters.pnmi == pytest.approx(report.characters_by_chance.pnmi, abs=0.005)


def test_the_chance_level_is_repeatable_and_needs_two_utterances() -> None:
    first, second = (measured(*talk(30, informed=True)) for _ in range(2))
    assert first.characters_by_chance == second.characters_by_chance
    assert measured(*talk(1, informed=True)).characters_by_chance is None


def test_labels_beyond_the_table_share_one_row() -> None:
    table = LabelTable(1 << 26)
    table._most = 4
    table._counts = np.zeros((2, 3), np.int64)
    table.add(list("abcdef"), np.zeros(6, np.int64))
    symbols, counts = table.sorted()

    assert symbols == ("(other)", "a", "b", "c")
    assert counts[0, 0] == 3


def test_json_has_plain_numbers_and_units_in_its_names() -> None:
    labels = (("A", 0.0, 0.02), ("B", 0.02, 0.04))
    value = measured(utterance([0, 1, 1], labels=labels, text="ab")).to_json()
    again = json.loads(json.dumps(value, allow_nan=False))

    assert again == value
    assert value["clusters_used_share"] == 0.5
    assert value["streams"][0]["bits_per_second"] == 100.0
    assert value["phones"]["pnmi"] == 1.0
    assert value["phones"]["top_units"][0]["phone"] == "A"
    assert value["characters_spread_evenly"]["frames"] == 3
    assert value["characters_shuffled_chance"] is None


def test_what_cannot_be_measured_is_refused_by_name() -> None:
    with pytest.raises(CorpusError, match="not one utterance has a frame"):
        measured()
    with pytest.raises(CorpusError, match="not one utterance has a frame"):
        measured(utterance([]))
    with pytest.raises(CorpusError, match=r"u: a unit is not in 0\.\.3"):
        measured(utterance([1, 4]))
    with pytest.raises(CorpusError, match="u: its number of unit subwords is missing"):
        measured(utterance([1]), subwords=9)
