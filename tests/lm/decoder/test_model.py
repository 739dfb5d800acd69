import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm.decoder.model import NONE, LanguageModel, ModelConfig, Vectors, size
from unitone.lm.decoder.options import SIZES
from unitone.nn.rotary import RopeScaling
from unitone.nn.transformer import TransformerConfig

SHAPE = TransformerConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=48)
LLAMA3 = replace(
    SHAPE,
    head_width=12,
    rope_scaling=RopeScaling(
        kind="llama3", factor=8.0, low_freq_factor=0.1, high_freq_factor=0.6, original_context=5
    ),
)
LINEAR = replace(SHAPE, head_width=6, rope_scaling=RopeScaling(kind="linear", factor=3.0))
SHAPES = st.sampled_from([SHAPE, LLAMA3, LINEAR])


def model(shape: TransformerConfig = SHAPE, *, features: int = 0) -> LanguageModel:
    config = ModelConfig(transformer=shape, vocab_size=50, context=64, features=features)
    return LanguageModel(config, generator=seeding.torch_generator(0, "model")).eval()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(50, (rows, length), generator=seeding.torch_generator(rows, length))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("lm-tiny", 2), ("lm-micro", 3), ("lm-mini", 5), ("lm-small", 29), ("lm-160m", 154),
        ("lm-350m", 310), ("lm-1.3b", 1237),
    ],
)  # fmt: skip
def test_named_sizes(name: str, millions: int) -> None:
    with torch.device("meta"):
        made = LanguageModel(size(name, vocab_size=1000))
    assert made.num_parameters / 1e6 == pytest.approx(millions, rel=0.05)


def test_an_unknown_size_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"lm-huge.*lm-tiny"):
        size("lm-huge", vocab_size=10)
    assert set(SIZES) >= {"lm-tiny", "lm-1.3b"}


@pytest.mark.parametrize("grad", [True, False])
def test_no_position_sees_a_later_one(grad: bool) -> None:
    """By gradient: the state of position 5 depends on inputs 0 to 5 and on nothing after them."""
    lm = model()
    x = torch.randn(1, 9, 32, generator=seeding.torch_generator(0)).requires_grad_()
    positions = torch.arange(9)[None]
    if grad:
        lm.transformer(x, positions=positions, causal=True)[0, 5].sum().backward()
        assert x.grad is not None
        seen = x.grad[0].abs().sum(-1)
        assert (seen[:6] > 0).all()
        assert (seen[6:] == 0).all()
    else:  # the other kernel, by changing the input
        with torch.no_grad():
            before = lm.transformer(x, positions=positions, causal=True)
            changed = x.clone()
            changed[0, 6:] += 1.0
            after = lm.transformer(changed, positions=positions, causal=True)
        torch.testing.assert_close(before[:, :6], after[:, :6])
        assert (before[:, 6:] - after[:, 6:]).abs().min() > 0


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    training=st.booleans(),
    shape=SHAPES,
)
def test_packed_is_unpacked(lengths: list[int], training: bool, shape: TransformerConfig) -> None:
    lm = model(shape)
    sequences = [tokens(1, length) for length in lengths]
    packed = torch.cat(sequences, 1)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    with torch.set_grad_enabled(training):
        together = lm(packed, positions=positions, segments=segments)
        alone = torch.cat([lm(sequence) for sequence in sequences], 1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5), rows=st.integers(1, 3), shape=SHAPES
)
def test_cache_is_no_cache(cuts: list[int], rows: int, shape: TransformerConfig) -> None:
    lm = model(shape)
    given = tokens(rows, sum(cuts))
    with torch.no_grad():
        whole = lm(given)
        cache = lm.cache(rows=rows, slots=sum(cuts))
        ends = np.cumsum([0, *cuts])
        parts = []
        for start, end in itertools.pairwise(map(int, ends)):
            length = end - start
            seen = torch.arange(end) <= torch.arange(start, end)[:, None]
            mask = None if start == 0 or length == 1 else seen.expand(rows, 1, -1, -1)
            parts.append(lm(given[:, start:end], mask=mask, cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


def test_the_cache_follows_chosen_rows() -> None:
    lm = model()
    given = tokens(3, 6)
    with torch.no_grad():
        cache = lm.cache(rows=3, slots=8)
        lm(given[:, :5], cache=cache)
        cache.select(torch.tensor([2, 0]))
        found = lm(given[[2, 0], 5:], cache=cache)
        torch.testing.assert_close(found, lm(given)[[2, 0], 5:], atol=1e-5, rtol=1e-4)


def test_heads_of_another_width() -> None:
    attention = model(LLAMA3).transformer.blocks[0].get_submodule("attention")
    shapes = {name: tuple(parameter.shape) for name, parameter in attention.named_parameters()}
    assert shapes == {"qkv.weight": (8 * 12, 32), "out.weight": (32, 4 * 12)}
    assert (SHAPE.head_dim, LLAMA3.head_dim) == (8, 12)


def test_scaled_positions_are_seen() -> None:
    """The same weights and tokens: only the states after the first position differ."""
    plain, scaled = model(), model(replace(SHAPE, rope_scaling=LLAMA3.rope_scaling))
    given = tokens(2, 9)
    difference = (plain(given) - scaled(given)).abs().amax(-1)
    assert (difference[:, 0] < 1e-6).all()
    assert (difference[:, 1:] > 1e-6).all()


def test_streams_of_tokens_are_summed() -> None:
    lm = model()
    one = tokens(2, 5)
    with_none = torch.stack([one, torch.full_like(one, NONE)], dim=2)
    torch.testing.assert_close(lm(with_none), lm(one))
    other = tokens(2, 6)[:, 1:]
    both = lm.embed(torch.stack([one, other], dim=2), {})
    torch.testing.assert_close(both, lm.embedding(one) + lm.embedding(other))


def test_vectors_replace_the_embeddings_of_their_positions() -> None:
    lm = model(features=7)
    given = tokens(2, 5)
    where = torch.zeros(2, 5, dtype=torch.bool)
    where[0, 1:3] = where[1, 4] = True
    values = torch.randn(3, 7, generator=seeding.torch_generator(1))
    x = lm.embed(given, {"features": Vectors(values=values, where=where)})
    torch.testing.assert_close(x[where], lm.projections["features"](values))
    torch.testing.assert_close(x[~where], lm.embedding(given)[~where])
    with pytest.raises(ConfigError, match="takes no voice"):
        lm.embed(given, {"voice": Vectors(values=values, where=where)})


def test_recomputed_activations_change_no_gradient() -> None:
    grads = []
    for again in (False, True):
        shape = TransformerConfig(
            dim=32, layers=2, heads=4, kv_heads=2, ffn=48, checkpoint_activations=again
        )
        config = ModelConfig(transformer=shape, vocab_size=50)
        lm = LanguageModel(config, generator=seeding.torch_generator(0, "model"))
        lm.head(lm(tokens(2, 6))).square().mean().backward()
        grads.append(lm.embedding.weight.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_untied_tables_and_padding_rows() -> None:
    config = ModelConfig(transformer=SHAPE, vocab_size=50, tied=False)
    lm = LanguageModel(config, generator=seeding.torch_generator(0))
    assert lm.output is not None
    assert lm.output.weight.shape == (64, 32)
    assert lm.head(lm(tokens(1, 3))).shape == (1, 3, 50)


@pytest.mark.parametrize(("heads", "kv_heads"), [(5, 5), (4, 3)])
def test_heads_that_do_not_divide(heads: int, kv_heads: int) -> None:
    with pytest.raises(ConfigError, match="multiple"):
        TransformerConfig(dim=32, layers=1, heads=heads, kv_heads=kv_heads, ffn=8)


def test_heads_without_pairs() -> None:
    with pytest.raises(ConfigError, match=r"dim / heads must be even and at least 2, got 1"):
        replace(SHAPE, heads=32)
    for width in (7, 0):
        with pytest.raises(ConfigError, match=f"head_width must be even.*got {width}"):
            replace(SHAPE, head_width=width)


def test_first_weights_are_the_generators_alone() -> None:
    """Whatever torch's global random state is; biases and projections of vectors included."""
    models = []
    for state in (1, 2):
        torch.manual_seed(state)
        config = replace(size("lm-tiny", vocab_size=40, features=5), voice=3)
        models.append(LanguageModel(config, generator=torch.Generator().manual_seed(0)))
    for (name, one), other in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        assert torch.equal(one, other), name
