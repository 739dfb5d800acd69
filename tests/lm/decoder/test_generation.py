"""Generation on small random models: a row is what it is alone, a search finds its optimum."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm.decoder.generation import Hypothesis, check, generate, groups, prepare, stream
from unitone.lm.decoder.kernels import is_prepared
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.sampling import choose, constrain
from unitone.lm.decoder.template import Decoding
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.nn.rotary import RopeScaling
from unitone.nn.transformer import TransformerConfig

VOCAB, EOS = 20, 3
SHAPE = TransformerConfig(dim=16, layers=2, heads=4, kv_heads=2, ffn=24)
SCALING = RopeScaling(kind="llama3", factor=8.0, original_context=20)
SCALED = replace(SHAPE, head_width=10, rope_scaling=SCALING)


def tiny(
    vocab: int = VOCAB,
    *,
    scale: float = 30.0,
    features: int = 0,
    shape: TransformerConfig = SHAPE,
) -> LanguageModel:
    """Return a random model whose next token depends strongly on what came before."""
    config = ModelConfig(transformer=shape, vocab_size=vocab, context=64, features=features)
    model = LanguageModel(config, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return model.eval()


def prompt(*tokens: int) -> Example:
    return Example(tokens=np.array(tokens, np.int32), target=np.zeros(len(tokens), bool))


def random_prompts(seed: int, lengths: list[int]) -> list[Example]:
    generator = np.random.default_rng(seed)
    return [prompt(*generator.integers(4, VOCAB, length).tolist()) for length in lengths]


def every(vocab: int = VOCAB) -> Tensor:
    return torch.ones(vocab, dtype=torch.bool)


def run(model: LanguageModel, prompts: list[Example], decoding: Decoding) -> list[Hypothesis]:
    return generate(model, prompts, allowed=every(), eos=EOS, decoding=decoding)


@torch.no_grad()
def slow_greedy(model: LanguageModel, example: Example, count: int) -> list[int]:
    """Greedy decoding that computes everything again for every token."""
    tokens = torch.from_numpy(example.tokens).long()[None]
    said: list[int] = []
    for _ in range(count):
        token = int(model.head(model(tokens)[:, -1]).argmax())
        if token == EOS:
            break
        said.append(token)
        tokens = torch.cat((tokens, torch.tensor([[token]])), dim=1)
    return said


def test_cache_is_no_cache() -> None:
    model = tiny()
    for example in random_prompts(0, [1, 2, 7, 30]):
        (found,) = run(model, [example], Decoding(max_tokens=20))
        assert found.tokens == slow_greedy(model, example, 20)


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(max_tokens=20),
        Decoding(max_tokens=20, beam=3),
        Decoding(max_tokens=20, temperature=1.0, top_k=8, top_p=0.9),
        Decoding(max_tokens=20, repetition_penalty=1.3, no_repeat=2, min_tokens=4),
        Decoding(max_tokens=20, max_ratio=0.5),
    ],
    ids=["greedy", "beam", "sampling", "rules", "ratio"],
)
def test_a_row_does_not_depend_on_its_neighbors(decoding: Decoding) -> None:
    model = tiny()
    prompts = random_prompts(0, [5, 1, 12, 5, 9, 30, 2])

    def streams() -> list[np.random.Generator]:
        return [seeding.stream(7, "row", number) for number in range(len(prompts))]

    def said(numbers: list[int]) -> list[Hypothesis]:
        return generate(
            model,
            [prompts[number] for number in numbers],
            allowed=every(),
            eos=EOS,
            decoding=decoding,
            generators=[streams()[number] for number in numbers],
        )

    together = said(list(range(len(prompts))))
    assert len({len(one.tokens) for one in together}) > 1
    for number, expected in enumerate(together):
        (alone,) = said([number])
        assert alone.tokens == expected.tokens
        assert alone.truncated == expected.truncated
        assert alone.score == pytest.approx(expected.score, abs=1e-4)


def test_a_beam_of_one_is_greedy() -> None:
    from unitone.lm.decoder.search import BeamSearch
    from unitone.lm.decoder.stepping import Stepper

    model, decoding = tiny(), Decoding(max_tokens=15)
    prompts = random_prompts(3, [4, 9, 2, 6])
    stepper = Stepper(prepare(model), prompts, allowed=every(), nulls=None, guidance=1.0)
    with torch.inference_mode():
        search = BeamSearch(stepper, decoding=decoding, eos=EOS, limits=torch.full((4,), 15))
        found = search.run()
    greedy = run(model, prompts, decoding)
    assert [one.columns for one in found] == [one.tokens for one in greedy]
    assert [one.score for one in found] == pytest.approx([one.score for one in greedy], abs=1e-4)


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
def test_a_wide_beam_finds_the_best_sequence(length_penalty: float) -> None:
    vocab, steps = 4, 4
    model, example = tiny(vocab, scale=8.0), prompt(1, 2)
    decoding = Decoding(beam=vocab**steps, max_tokens=steps, length_penalty=length_penalty)
    (found,) = generate(model, [example], allowed=every(vocab), eos=EOS, decoding=decoding)

    def score(said: tuple[int, ...]) -> float:
        tokens = torch.tensor([[1, 2, *said, EOS]])
        with torch.no_grad():
            log_p = model.head(model(tokens)).log_softmax(-1)[0, 1:-1]
        total = float(log_p.gather(1, tokens[0, 2:, None]).sum())
        return float(total / (len(said) + 1) ** length_penalty)

    complete = [
        said for length in range(steps) for said in itertools.product([0, 1, 2], repeat=length)
    ]
    best = max(complete, key=score)
    assert tuple(found.tokens) == best
    assert found.score == pytest.approx(score(best), abs=1e-4)
    assert not found.truncated


def test_a_beam_is_never_worse_than_greedy_where_it_ends() -> None:
    model = tiny(scale=10.0)
    prompts = random_prompts(5, [3] * 16)
    greedy = run(model, prompts, Decoding(max_tokens=30, length_penalty=0.0))
    wide = run(model, prompts, Decoding(max_tokens=30, length_penalty=0.0, beam=8))
    better = [
        one.score >= other.score - 1e-4
        for one, other in zip(wide, greedy, strict=True)
        if not (one.truncated or other.truncated)
    ]
    assert sum(better) >= 0.9 * len(better) > 0


def test_only_what_is_allowed_is_generated() -> None:
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[[EOS, 5, 11, 17]] = True
    prompts = random_prompts(1, [3, 8, 8])
    for decoding in (
        Decoding(max_tokens=12, temperature=2.0),
        Decoding(max_tokens=12, beam=4),
        Decoding(max_tokens=12),
    ):
        found = generate(tiny(), prompts, allowed=allowed, eos=EOS, decoding=decoding)
        assert {token for one in found for token in one.tokens} <= {5, 11, 17}


def test_guidance_of_one_is_none_and_of_zero_is_the_null_prompt() -> None:
    model = tiny()
    prompts, nulls = random_prompts(1, [6, 9, 3]), random_prompts(2, [2, 2, 4])

    def guided(guidance: float) -> list[list[int]]:
        decoding = Decoding(max_tokens=12, guidance=guidance)
        found = generate(model, prompts, allowed=every(), eos=EOS, decoding=decoding, nulls=nulls)
        return [one.tokens for one in found]

    plain = [one.tokens for one in run(model, prompts, Decoding(max_tokens=12))]
    null = [one.tokens for one in run(model, nulls, Decoding(max_tokens=12))]
    assert guided(1.0) == plain
    assert guided(1.0 + 1e-6) == plain
    assert guided(0.0) == null
    assert guided(3.0) not in (plain, null)


def test_guidance_without_null_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="nulls"):
        run(tiny(), random_prompts(1, [3]), Decoding(guidance=2.0))


def test_least_and_most_tokens() -> None:
    model, prompts = tiny(), random_prompts(0, [3, 9, 20])
    for beam in (1, 3):
        found = run(model, prompts, Decoding(max_tokens=9, min_tokens=9, beam=beam))
        assert [len(one.tokens) for one in found] == [9, 9, 9]
        assert all(one.truncated for one in found)
        found = run(
            model, prompts, Decoding(max_tokens=40, min_tokens=39, max_ratio=0.1, beam=beam)
        )
        assert [len(one.tokens) for one in found] == [10, 10, 12]
    found = run(model, prompts, Decoding(max_tokens=1000, min_tokens=1000))
    assert [len(one.tokens) for one in found] == [61, 55, 44]  # the context holds 64


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"64 tokens leaves no room .* 64"):
        run(tiny(), random_prompts(0, [64]), Decoding())


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_run_of_tokens_comes_back(size: int, beam: int) -> None:
    decoding = Decoding(max_tokens=40, min_tokens=15, no_repeat=size, beam=beam)
    for one in run(tiny(), random_prompts(4, [2, 5, 7]), decoding):
        runs = [tuple(one.tokens[at : at + size]) for at in range(len(one.tokens) - size + 1)]
        assert len(runs) == len(set(runs))


def test_a_row_with_nothing_left_to_say_ends() -> None:
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[[EOS, 5]] = True
    decoding = Decoding(max_tokens=9, min_tokens=9, no_repeat=1)
    (found,) = generate(tiny(), [prompt(4)], allowed=allowed, eos=EOS, decoding=decoding)
    assert found.tokens == [5]
    assert np.isfinite(found.score)


def test_the_repetition_penalty_weakens_what_was_said() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.0]])
    decoding = Decoding(repetition_penalty=2.0)
    out = constrain(logits, torch.tensor([[0, 1, 0]]), eos=3, decoding=decoding)
    assert out.tolist() == [[1.0, -4.0, 1.0, 0.0]]
    assert logits.tolist() == [[2.0, -2.0, 1.0, 0.0]]


def test_draws_follow_the_probabilities() -> None:
    log_p = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(20_000, -1)
    uniforms = torch.from_numpy(seeding.stream(0, "test").random(20_000))

    def shares(**settings: Any) -> list[float]:
        decoding = replace(Decoding(temperature=1.0), **settings)
        drawn = choose(log_p, decoding=decoding, uniforms=uniforms)
        return (torch.bincount(drawn, minlength=4) / len(drawn)).tolist()

    assert shares() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.015)
    assert shares(top_k=2) == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.015)
    assert shares(top_p=0.69) == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.015)
    assert shares(top_p=0.71) == pytest.approx([0, 2 / 9, 3 / 9, 4 / 9], abs=0.015)
    assert shares(top_p=1e-9) == [0, 0, 0, 1]
    weights = np.array([0.1, 0.2, 0.3, 0.4]) ** 2
    assert shares(temperature=0.5) == pytest.approx(list(weights / weights.sum()), abs=0.015)


@given(
    values=st.lists(st.floats(-30, 30), min_size=1, max_size=6),
    uniform=st.floats(0, 1, exclude_max=True),
    top_k=st.integers(0, 7),
    top_p=st.floats(0.01, 1),
)
def test_a_draw_is_among_the_likeliest(
    values: list[float], uniform: float, top_k: int, top_p: float
) -> None:
    log_p = torch.tensor([values]).log_softmax(-1)
    decoding = Decoding(temperature=1.0, top_k=top_k, top_p=top_p)
    drawn = choose(log_p, decoding=decoding, uniforms=torch.tensor([uniform], dtype=torch.float64))
    p = log_p[0].double().exp()
    better = p[p > p[drawn]]
    assert not top_k or len(better) < top_k
    assert float(better.sum()) <= top_p + 1e-6


def test_sampling_is_repeatable_and_varies() -> None:
    model, prompts = tiny(scale=5.0), random_prompts(0, [4, 4, 4, 4])
    decoding = Decoding(temperature=1.0, max_tokens=20)
    once, again = run(model, prompts, decoding), run(model, prompts, decoding)
    assert once == again
    same = [prompts[0]] * 6
    assert len({tuple(one.tokens) for one in run(model, same, decoding)}) > 1


def test_a_stream_is_the_batch_token_by_token() -> None:
    model, example = tiny(), random_prompts(0, [6])[0]
    for decoding in (Decoding(max_tokens=20), Decoding(max_tokens=20, temperature=1.0)):
        (whole,) = generate(
            model,
            [example],
            allowed=every(),
            eos=EOS,
            decoding=decoding,
            generators=[seeding.stream(0, "one")],
        )
        tokens = stream(
            model,
            example,
            allowed=every(),
            eos=EOS,
            decoding=decoding,
            generator=seeding.stream(0, "one"),
        )
        assert list(tokens) == whole.tokens
    with pytest.raises(ConfigError, match="beam 1"):
        next(stream(model, example, allowed=every(), eos=EOS, decoding=Decoding(beam=2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": 0}, "beam must be 1 or more, got 0"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature must be a finite number"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be above 0"),
        ({"beam": 2, "temperature": 1.0}, "beam search doesn't draw"),
        ({"top_k": 5}, "need a temperature"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens 9 is more than max_tokens 8"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(replace(Decoding(), **settings))


def test_vectors_in_the_prompt_reach_their_rows() -> None:
    model = tiny(features=5)
    generator = np.random.default_rng(0)

    def with_features(count: int) -> Example:
        where = np.array([False] + [True] * count + [False])
        values = generator.standard_normal((count, 5)).astype(np.float32)
        tokens = np.array([4, *[0] * count, 6], np.int32)
        return Example(
            tokens=tokens,
            target=np.zeros(len(tokens), bool),
            vectors={"features": (values, where)},
        )

    prompts = [with_features(3), prompt(5, 6), with_features(9)]
    together = run(model, prompts, Decoding(max_tokens=10))
    for example, expected in zip(prompts, together, strict=True):
        assert run(model, [example], Decoding(max_tokens=10))[0].tokens == expected.tokens


def test_prompts_with_several_streams() -> None:
    model = tiny()
    tokens = np.array([[4, -1], [5, -1], [6, 7]], np.int32)
    wide = Example(tokens=tokens, target=np.zeros(3, bool))
    found = run(model, [wide, prompt(4)], Decoding(max_tokens=6))
    assert run(model, [wide], Decoding(max_tokens=6))[0].tokens == found[0].tokens
    assert run(model, [prompt(4)], Decoding(max_tokens=6))[0].tokens == found[1].tokens


@pytest.mark.parametrize("shape", [SHAPE, SCALED], ids=["plain", "scaled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_preparing_changes_nothing_but_speed(dtype: torch.dtype, shape: TransformerConfig) -> None:
    model = tiny(scale=1.0, shape=shape).to(dtype).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # the norms' weights, which are ones
                parameter.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(2))
    ready = prepare(model)
    assert is_prepared(ready)
    assert not is_prepared(model)
    assert not ready.training
    assert model.training
    assert prepare(ready) is ready
    tokens = torch.arange(4, 12).repeat(2, 1)
    slots = torch.arange(8)
    visible = (slots <= slots[:, None]) & (slots >= torch.tensor([0, 3])[:, None, None])
    mask = (visible | torch.eye(8, dtype=torch.bool))[:, None]
    positions = (slots - torch.tensor([[0], [3]])).clamp(min=0)
    with torch.no_grad():
        expected = model.eval()(tokens), model(tokens, positions=positions, mask=mask)
        found = ready(tokens), ready(tokens, positions=positions, mask=mask)
        cache = ready.cache(rows=2, slots=4)
        parts = [ready(tokens[:, part], cache=cache) for part in (slots[:6], slots[6:7], slots[7:])]
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in zip((*expected, expected[0]), (*found, torch.cat(parts, 1)), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=tolerance, atol=tolerance)
    assert any(isinstance(module, torch.nn.Linear) for module in model.modules())
    assert not any(isinstance(module, torch.nn.Linear) for module in ready.modules())


def test_opt_generates_too() -> None:
    config = OptConfig(
        transformer=replace(SHAPE, kv_heads=4), vocab_size=VOCAB, context=64, embed_dim=8
    )
    model = OptModel(config, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30.0)
    prompts = random_prompts(0, [3, 7])
    together = generate(
        model, prompts, allowed=every(), eos=EOS, decoding=Decoding(max_tokens=8, min_tokens=3)
    )
    for example, expected in zip(prompts, together, strict=True):
        (alone,) = generate(
            model,
            [example],
            allowed=every(),
            eos=EOS,
            decoding=Decoding(max_tokens=8, min_tokens=3),
        )
        assert alone.tokens == expected.tokens


@given(lengths=st.lists(st.integers(1, 50), max_size=30), budget=st.integers(1, 120))
def test_groups_hold_every_prompt_once_within_the_budget(lengths: list[int], budget: int) -> None:
    found = groups(lengths, max_tokens=budget, max_rows=7)
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) <= 7
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= budget


@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=30),
    budget=st.integers(1, 2000),
    each=st.integers(1, 9),
)
def test_groups_count_new_tokens_and_all_rows_of_a_prompt(
    sizes: list[tuple[int, int]], budget: int, each: int
) -> None:
    lengths, new = [one for one, _ in sizes], [one for _, one in sizes]
    found = groups(lengths, new=new, each=each, max_tokens=budget)
    assert sorted(itertools.chain(*found)) == list(range(len(sizes)))
    for batch in found:
        longest = max(lengths[n] for n in batch) + max(new[n] for n in batch)
        assert len(batch) == 1 or len(batch) * each * longest <= budget


@pytest.mark.parametrize("shape", [SHAPE, SCALED], ids=["plain", "scaled"])
def test_the_cache_grows(shape: TransformerConfig) -> None:
    config = ModelConfig(transformer=shape, vocab_size=VOCAB, context=300)
    model = LanguageModel(config, generator=torch.Generator().manual_seed(1)).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(20)
    (one,) = run(model, random_prompts(0, [3]), Decoding(max_tokens=80, min_tokens=80))
    with torch.no_grad():
        tokens = torch.tensor([random_prompts(0, [3])[0].tokens.tolist() + one.tokens])
        logits = model.head(model(tokens))[0, 2:-1]
    logits[:, EOS] = -torch.inf
    assert logits.argmax(-1).tolist() == one.tokens
