"""A verified draft is greedy search, whatever the draft."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lm.decoder.test_generation import EOS, VOCAB, every, prompt, random_prompts, tiny
from unitone.lm.decoder.generation import Hypothesis, generate, prepare
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.template import Decoding
from unitone.lm.drafts.verify import Verified, verify

MODEL = prepare(tiny())
PROMPTS = random_prompts(3, [1, 3, 8, 20, 40])
GREEDY = Decoding(max_tokens=24)
RULES = {
    "plain": GREEDY,
    "rules": replace(GREEDY, repetition_penalty=1.3, no_repeat=2, min_tokens=4),
    "ratio": replace(GREEDY, max_ratio=0.5),
    "one": replace(GREEDY, max_tokens=1),
}


def searched(example: Example, decoding: Decoding) -> Hypothesis:
    (found,) = generate(MODEL, [example], allowed=every(), eos=EOS, decoding=decoding)
    return found


def verified(example: Example, draft: list[int], decoding: Decoding = GREEDY) -> Verified:
    return verify(MODEL, example, draft, allowed=every(), eos=EOS, decoding=decoding)


@settings(max_examples=150, deadline=None)
@given(
    number=st.integers(0, len(PROMPTS) - 1),
    rules=st.sampled_from(sorted(RULES)),
    draft=st.lists(st.integers(0, VOCAB + 5), max_size=40),
    edits=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(4, 19)), max_size=4
    ),
    own=st.booleans(),
)
def test_any_draft_gives_what_greedy_search_gives(
    number: int, rules: str, draft: list[int], edits: list[tuple[int, int, int]], own: bool
) -> None:
    decoding = RULES[rules]
    right = searched(PROMPTS[number], decoding)
    if own:  # the right tokens, some of them other, missing or twice
        draft = list(right.tokens)
        for place, kind, token in edits:
            draft[place : place + (kind < 2)] = [token] * (kind != 1)
    found = verified(PROMPTS[number], draft, decoding)
    assert (found.tokens, found.truncated) == (right.tokens, right.truncated)
    assert found.score == pytest.approx(right.score, rel=1e-4, abs=1e-5)


def test_a_right_draft_takes_one_pass_and_an_empty_one_a_pass_a_token() -> None:
    for example in PROMPTS:
        right = searched(example, GREEDY)
        count = len(right.tokens) + (not right.truncated)
        assert verified(example, []).passes == count
        assert verified(example, right.tokens).passes == 1


@pytest.mark.parametrize("kind", ["other", "missing", "twice"])
def test_a_draft_goes_on_after_one_wrong_token(kind: str) -> None:
    decoding = replace(GREEDY, max_tokens=40)
    for example in PROMPTS[:4]:
        right = searched(example, decoding).tokens
        if len({*right}) < 6:  # a loop: the draft fits in several places
            continue
        wrong = {"other": [4 + right[9] % 2], "missing": [], "twice": [right[9], right[9]]}
        draft = [*right[:9], *wrong[kind], *right[10:]]
        found = verified(example, draft, decoding)
        assert found.tokens == right
        assert found.passes <= 8 < len(right)


def test_vectors_among_the_prompt_stay_where_they_are() -> None:
    model = prepare(tiny(features=4))
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    where = np.array([False, True, True, True, False])
    example = replace(prompt(4, 5, 5, 5, 6), vectors={"features": (values, where)})
    options = {"allowed": every(), "eos": EOS, "decoding": GREEDY}
    (right,) = generate(model, [example], **options)  # type: ignore[arg-type]
    assert verify(model, example, right.tokens, **options).tokens == right.tokens  # type: ignore[arg-type]
    assert verify(model, example, [7, 8], **options).tokens == right.tokens  # type: ignore[arg-type]
    assert torch.is_grad_enabled()
