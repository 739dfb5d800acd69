"""Prefix beam search against the sum over all paths; n-grams by hand; a lexicon."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lm.t2v2.conftest import TABLE
from unitone.errors import ConfigError
from unitone.lm import decode
from unitone.lm.t2v2.beam import Ngrams, WordScorer, search
from unitone.lm.t2v2.decoding import collapsed
from unitone.lm.t2v2.options import DecodingConfig

ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-1.0 <unk>
0 <s> -0.5
-0.7 </s>
-0.4 a -0.3
-0.9 b

\\2-grams:
-0.1 <s> a
-0.2 a b

\\end\\
"""
TEN = math.log(10)


def spell(ids: list[int]) -> str:
    return "".join("ab "[one] for one in ids)


def posteriors(frames: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(frames, 4))
    return np.asarray(drawn - np.log(np.exp(drawn).sum(1, keepdims=True)))


def every_text(log_p: np.ndarray) -> dict[tuple[int, ...], float]:
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(4), repeat=len(log_p)):
        text = tuple(collapsed(np.array(path)))
        value = sum(float(log_p[t, one]) for t, one in enumerate(path))
        found[text] = float(np.logaddexp(found.get(text, -math.inf), value))
    return found


@settings(max_examples=40, deadline=None)
@given(frames=st.integers(1, 5), seed=st.integers(0, 999), words=st.booleans())
def test_a_wide_beam_is_the_sum_over_all_paths(
    tmp_path_factory: pytest.TempPathFactory, frames: int, seed: int, words: bool
) -> None:
    log_p = posteriors(frames, seed)
    arpa = tmp_path_factory.mktemp("arpa") / "lm.arpa"
    arpa.write_text(ARPA, encoding="utf-8")
    scorer = WordScorer(spell, ngrams=Ngrams(arpa), weight=0.7, bonus=0.3) if words else None
    every = every_text(log_p)
    if scorer is not None:
        every = {text: value + scorer(text, whole=True) for text, value in every.items()}
    found = search(log_p, beam=5000, scorer=scorer)
    assert {tuple(ids) for ids, _ in found} == {*every}
    for ids, score in found:
        assert score == pytest.approx(every[tuple(ids)], abs=1e-9)
    assert found[0][1] == max(score for _, score in found)


def test_sure_frames_are_read_as_greedily() -> None:
    classes = np.array([0, 1, 1, 0, 1, 3, 2, 2, 0])
    log_p = np.log(np.full((9, 4), 0.01) + 0.96 * np.eye(4)[classes])
    for beam in (1, 2, 16):
        assert search(log_p, beam=beam)[0][0] == collapsed(classes) == [0, 0, 2, 1]


def test_n_grams_back_off(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA, encoding="utf-8")
    model = Ngrams(path)
    assert model.score((), "a") == pytest.approx(-0.1 * TEN)
    assert model.score(("a",), "b") == pytest.approx(-0.2 * TEN)
    assert model.score(("a",), "a") == pytest.approx((-0.3 - 0.4) * TEN)
    assert model.score(("b",), "c") == pytest.approx(-1.0 * TEN)  # unknown
    assert model.score((), "</s>") == pytest.approx((-0.5 - 0.7) * TEN)


def test_only_words_of_the_lexicon_are_read() -> None:
    log_p = posteriors(6, 3)
    scorer = WordScorer(spell, lexicon=["ab", "b"])
    ids, score = search(log_p, beam=64, scorer=scorer)[0]
    assert math.isfinite(score)
    assert {*spell(ids).split()} <= {"ab", "b"}


def test_the_command_searches(
    learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("\n".join({word for row in TABLE for word in row["text"].split()}))
    out = tmp_path / "h.jsonl"
    run = ["--model", str(learnt / "last"), "--tokens", str(learnt.parent / "tokens")]
    run += ["--task", "asr", "--device", "cpu", "--out", str(out)]
    assert decode.main([*run, "--beam", "4", "--lexicon", str(lexicon)]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == [row["text"] for row in TABLE]
    run[-1] = str(tmp_path / "i.jsonl")
    (tmp_path / "no.arpa").write_text("no\n")
    assert decode.main([*run, "--beam", "4", "--ngrams", str(tmp_path / "no.arpa")]) == 2
    assert "no ARPA file" in capsys.readouterr().err
    assert decode.main([*run, "--beam", "4", "--words"]) == 2
    assert "words have times on the likeliest path only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "--beam must be at least 1"),
        ({"lexicon": Path("x")}, "--lexicon: goes with beam search"),
        ({"ngrams": Path("x")}, "--ngrams: goes with beam search"),
        ({"ngram_weight": math.nan}, "--ngram-weight must be in -100..100"),
    ],
)
def test_searches_that_cannot_be_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingConfig(**options)  # type: ignore[arg-type]
