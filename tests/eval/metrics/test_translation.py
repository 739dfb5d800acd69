import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from unitone.errors import ConfigError, CorpusError
from unitone.eval.metrics import translation
from unitone.eval.metrics.translation import (
    BLEU_COLUMNS,
    CHRF_COLUMNS,
    FORMULAS,
    Variant,
    bleu_of,
    chrf_of,
    ngram_counts,
    score_translation,
    tokenizer_of,
)
from unitone.eval.statistics import Resampling, comparisons

SENTENCE = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "."]), max_size=8)
CORPUS = st.lists(st.tuples(SENTENCE.filter(bool), SENTENCE), min_size=1, max_size=6)


def scores(references: list[str], hypotheses: list[str]) -> tuple[float, float]:
    """Return BLEU and chrF of a corpus."""
    sums = ngram_counts(references, hypotheses).sum(axis=0, keepdims=True)
    return float(bleu_of(sums[:, BLEU_COLUMNS])[0]), float(chrf_of(sums[:, CHRF_COLUMNS])[0])


@given(CORPUS)
def test_scores_are_those_of_sacrebleu(corpus: list[tuple[list[str], list[str]]]) -> None:
    references = [" ".join(left) for left, _ in corpus]
    hypotheses = [" ".join(right) for _, right in corpus]
    bleu = sacrebleu.corpus_bleu(hypotheses, [references], force=True).score
    chrf = sacrebleu.corpus_chrf(hypotheses, [references]).score
    assert scores(references, hypotheses) == pytest.approx((bleu, chrf), abs=1e-9)


def test_many_corpora_at_once_are_each_alone() -> None:
    sums = ngram_counts(["a b c d e", "the cat sat on it"], ["a b c x e", "the cat sat on"])
    both = np.concatenate([sums, sums.sum(axis=0, keepdims=True)])
    for formula, columns in ((bleu_of, slice(0, 10)), (chrf_of, slice(10, 28))):
        alone = [float(formula(row[None, columns])[0]) for row in both]
        assert formula(both[:, columns]).tolist() == pytest.approx(alone)


@pytest.mark.parametrize("lowercase", [False, True])
def test_the_signature_begins_as_sacrebleus(lowercase: bool) -> None:
    references, hypotheses = ["a b c d", "e f"], ["a b c d", "e"]
    variant = Variant(lowercase=lowercase, chrf_words=2, ter=True)
    score = score_translation(references, hypotheses, variant=variant)
    metrics = (
        BLEU(force=True, lowercase=lowercase),
        CHRF(word_order=2, lowercase=lowercase),
        TER(),
    )
    for metric, ours in zip(metrics, score.signatures.values(), strict=True):
        metric.corpus_score(hypotheses, [references], n_bootstrap=2)
        theirs = str(metric.get_signature()).replace("bs:2|", "bs:2000|")
        theirs = re.sub(r"seed:\d+", "seed:0", theirs)
        assert "bs:2000|seed:0|" in theirs
        assert ours.startswith(f"{theirs}|unitone:")


@given(
    st.lists(
        st.tuples(st.lists(SENTENCE.filter(bool), min_size=1, max_size=3), SENTENCE),
        min_size=1,
        max_size=4,
    )
)
def test_several_references_are_scored_as_sacrebleu_does(
    corpus: list[tuple[list[list[str]], list[str]]],
) -> None:
    references = [[" ".join(one) for one in left] for left, _ in corpus]
    hypotheses = [" ".join(right) for _, right in corpus]
    most = max(map(len, references))
    streams = [[one[n] if n < len(one) else None for one in references] for n in range(most)]
    variant = Variant(chrf_words=2, ter=True)
    ours = score_translation(
        references, hypotheses, variant=variant, resampling=Resampling(resamples=100, swaps=100)
    )
    bleu, chrf, ter = BLEU(force=True), CHRF(word_order=2), TER()
    assert ours.bleu == pytest.approx(bleu.corpus_score(hypotheses, streams).score, abs=1e-9)  # type: ignore[arg-type]
    assert ours.chrf == pytest.approx(chrf.corpus_score(hypotheses, streams).score, abs=1e-9)  # type: ignore[arg-type]
    assert ours.ter == pytest.approx(ter.corpus_score(hypotheses, streams).score, abs=1e-9)  # type: ignore[arg-type]
    numbers = {len(one) for one in references}
    assert ours.signature.startswith(f"nrefs:{numbers.pop() if len(numbers) == 1 else 'var'}|")


def test_lower_case_is_scored_alike() -> None:
    texts = ["The cat sat on it"], ["the CAT sat on it"]
    assert score_translation(*texts).bleu < 100
    score = score_translation(*texts, variant=Variant(lowercase=True))
    assert (score.bleu, score.chrf) == pytest.approx((100, 100))


def test_a_sentence_needs_a_reference() -> None:
    with pytest.raises(CorpusError, match="sentence 2 has an empty list of references"):
        ngram_counts(["a", []], ["a", "b"])


@pytest.mark.parametrize("name", ["flores200", "spm", "spBLEU-1K"])
def test_a_model_that_is_not_there_is_named_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    for module in ("utils", "tokenizers.tokenizer_spm"):
        monkeypatch.setattr(f"sacrebleu.{module}.SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"save https://.* as .*models"):
        ngram_counts(["a"], ["a"], tokenizer=name)


def test_a_model_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sentencepiece

    for module in ("utils", "tokenizers.tokenizer_spm"):
        monkeypatch.setattr(f"sacrebleu.{module}.SACREBLEU_DIR", str(tmp_path))
    (tmp_path / "models").mkdir()
    with (tmp_path / "models" / "flores200sacrebleuspm").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["zwei Hunde spielen", "ein Hund spielt"] * 20),
            model_writer=model,
            vocab_size=18,
            minloglevel=2,
        )
    try:
        text = ["zwei Hunde spielen"]
        score = score_translation(text, text, tokenizer="flores200")
        assert "|tok:flores200|" in score.signature
        assert score.reference_words > 3
    finally:
        translation._bleu_metric.cache_clear()


def test_parts_of_bleu() -> None:
    score = score_translation(["a b c d e f"], ["a b c d"])
    assert score.precisions == (100.0, 100.0, 100.0, 100.0)
    assert score.brevity_penalty == pytest.approx(np.exp(1 - 6 / 4))
    assert score.bleu == pytest.approx(100 * score.brevity_penalty)
    assert score.ratio == pytest.approx(4 / 6)


def test_nothing_said_is_zero() -> None:
    score = score_translation(["a b", "c d"], ["", ""])
    assert (score.bleu, score.chrf, score.brevity_penalty) == (0.0, 0.0, 0.0)


def test_the_interval_holds_the_score_and_better_is_found() -> None:
    references = [f"the {n} small dogs are playing in the park" for n in range(60)]
    good = [one.replace("small", "little") if len(one) % 2 else one for one in references]
    bad = [one.replace("dogs are", "dog is") for one in references]
    score = score_translation(references, good, resampling=Resampling(resamples=300))
    assert score.bleu_interval is not None
    assert score.bleu_interval.low <= score.bleu <= score.bleu_interval.high
    sums = ngram_counts(references, good), ngram_counts(references, bad)
    found = comparisons(*sums, FORMULAS)
    assert found["bleu"].difference > 0
    assert found["bleu"].p_value < 0.01


def test_tokenizers() -> None:
    codes = ("de", "zh_TW", "th", "ko", "cmn", "cmn-Hans-CN", "zho", "chi", "jpn", "tha", "eng")
    names = ("13a", "zh", "char", "13a", "zh", "zh", "zh", "zh", "char", "char", "13a")
    assert tuple(map(tokenizer_of, codes)) == names
    assert scores(["今日は良い天気"], ["今日は良い天候"])[0] == 0.0
    counts = ngram_counts(["今日は良い天気"], ["今日は良い天候"], tokenizer="char")
    assert float(bleu_of(counts[:, :10])[0]) > 50


def test_a_tokenizer_that_is_not_installed_names_its_cure() -> None:
    pytest.importorskip("sacrebleu")
    try:
        import MeCab  # type: ignore[import-not-found] # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"pip install 'sacrebleu\[ja\]'"):
            ngram_counts(["a"], ["a"], tokenizer="ja-mecab")


def test_auto_needs_a_language() -> None:
    with pytest.raises(ConfigError, match="needs a target language"):
        ngram_counts(["a"], ["a"], tokenizer="auto")


def test_no_sentences_are_an_error() -> None:
    with pytest.raises(CorpusError, match="0 references, 0 hypotheses"):
        ngram_counts([], [])
