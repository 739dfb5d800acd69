import math
import time

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import CorpusError
from unitone.eval.metrics.error_rates import FORMULAS, error_counts, score_wer
from unitone.eval.statistics import Resampling, comparisons

SENTENCES = st.lists(st.text("abc d", min_size=1, max_size=20), min_size=1, max_size=5)


@given(SENTENCES)
def test_rates_are_those_of_jiwer(references: list[str]) -> None:
    references = [" ".join(one.split()) or "a" for one in references]
    hypotheses = [one[::2] for one in references]
    hypotheses = [" ".join(one.split()) for one in hypotheses]
    score = score_wer(
        references, hypotheses, normalizer="none", resampling=Resampling(resamples=100)
    )
    assert score.wer == pytest.approx(jiwer.wer(references, hypotheses))
    assert score.cer == pytest.approx(jiwer.cer(references, hypotheses))


def test_a_corpus_by_hand() -> None:
    score = score_wer(
        ["two dogs are playing", "a cat", "yes"], ["Two cats are playing now.", "a", "yes"]
    )
    assert (score.words.substitutions, score.words.deletions, score.words.insertions) == (1, 1, 1)
    assert score.wer == pytest.approx(3 / 7)
    assert score.sentence_error_rate == pytest.approx(2 / 3)
    assert score.interval is not None
    assert score.interval.low <= score.wer <= score.interval.high
    assert "norm:basic.2" in score.signature


def test_saying_nothing_is_all_wrong() -> None:
    assert score_wer(["a b", "c"], ["", ""]).wer == 1.0


def test_words_for_a_silent_reference_count() -> None:
    assert score_wer(["a b", ""], ["a b", "c"]).wer == 0.5


def test_references_without_words_have_no_rate() -> None:
    with pytest.raises(CorpusError, match="no words after normalization"):
        score_wer(["...", "!"], ["a", "b"])


def test_numbers_of_texts_must_agree() -> None:
    with pytest.raises(CorpusError, match="2 references, but 1 hypotheses"):
        score_wer(["a", "b"], ["a"])


def test_spaceless_text_is_scored_by_characters() -> None:
    score = score_wer(["今日は良い天気"], ["今日は悪い天気"])
    assert score.wer == 1.0
    assert score.cer == pytest.approx(1 / 7)
    assert score.interval is None


def test_json_has_null_for_what_is_undefined() -> None:
    score = score_wer(["a"], ["a"])
    assert score.to_json()["wer_interval"] is None
    assert not math.isnan(score.to_json()["wer"])


def test_a_comparison_finds_the_better_system() -> None:
    references = [("a b c d e", "")] * 40
    better = error_counts([(one, "a b c d e") for one, _ in references])
    worse = error_counts([(one, "a b x d e") for one, _ in references])
    found = comparisons(better, worse, FORMULAS)["wer"]
    assert found.difference == pytest.approx(-0.2)
    assert found.p_value < 0.001


def test_clusters_count_as_one_draw() -> None:
    references = ["a b"] * 10
    hypotheses = ["a b"] * 5 + ["x y"] * 5
    speakers = ["ann"] * 5 + ["bob"] * 5
    apart = score_wer(references, hypotheses).interval
    together = score_wer(references, hypotheses, clusters=speakers).interval
    assert apart is not None
    assert together is not None
    assert (together.low, together.high) == (0.0, 1.0)
    assert apart.low > 0.0


@pytest.mark.slow
def test_ten_thousand_utterances_take_seconds() -> None:
    references = [
        f"word{n % 97} and some others to make it as long as speech" for n in range(10_000)
    ]
    hypotheses = [one.replace("some", "sum") for one in references]
    start = time.perf_counter()
    score_wer(references, hypotheses)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("今天 天气 很 好", "今天天气很好"),
        ("今日は いい天気", "今日は いい 天気"),
        ("สวัสดี ครับ", "สวัสดีครับ"),
    ],
)
def test_spaces_in_scripts_without_them_are_no_characters(reference: str, hypothesis: str) -> None:
    score = score_wer([reference], [hypothesis])
    assert score.cer == score.sentence_error_rate == 0.0
    assert "|cer_spaces:auto|" in score.signature
    counted = score_wer([reference], [hypothesis], spaces="count")
    assert counted.cer > 0.0
    assert "|cer_spaces:count|" in counted.signature


def test_spaces_between_words_are_characters_unless_they_are_ignored() -> None:
    texts = ["to day 好 的"], ["today 好的"]
    assert score_wer(*texts).characters.reference == len("to day好的")
    assert score_wer(*texts).cer == pytest.approx(1 / 8)
    assert score_wer(*texts, spaces="ignore").cer == 0.0
    assert score_wer(["a b"], ["ab"], spaces="ignore").words.errors > 0


def test_languages_say_how_case_is_lowered() -> None:
    texts = ["ISPARTA", "INDIA"], ["ısparta", "india"]
    assert score_wer(*texts, languages=["tur", "en"]).wer == 0.0
    assert score_wer(*texts, languages=[None, None]).wer == 0.5
