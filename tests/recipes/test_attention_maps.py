"""Attention maps are what the model computes, and the measure of order is what it says."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.nn.transformer import TransformerConfig
from unitone.recipes.tour import attention_maps

LENGTH = 9
SHAPE = TransformerConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=48, head_width=12)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    config = ModelConfig(transformer=SHAPE, vocab_size=50, context=64)
    return LanguageModel(config, generator=seeding.torch_generator(0, "model")).eval()


def example(*, targets: int = 3) -> Example:
    tokens = seeding.stream(0, "tokens").integers(50, size=LENGTH).astype(np.int32)
    return Example(tokens=tokens, target=np.arange(LENGTH) >= LENGTH - targets)


def test_weights_are_those_that_the_model_mixes_with(model: LanguageModel) -> None:
    """The last layer's output, made again from the weights and its values."""
    made = attention_maps.weights(model, example(), of=np.ones(LENGTH, bool))
    assert made.shape == (2, 4, 3, LENGTH)
    block = model.transformer.blocks[-1].get_submodule("attention")
    seen: list[torch.Tensor] = []

    def keep(_: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        seen.extend((given[0], out))

    handle = block.register_forward_hook(keep)
    model(torch.from_numpy(example().tokens).long()[None])
    handle.remove()
    qkv = block.get_submodule("qkv")(seen[0])[0].unflatten(-1, (-1, 12))
    value = qkv[:, 6:].repeat_interleave(2, dim=1).transpose(0, 1)
    mixed = torch.from_numpy(made[-1]) @ value
    out = block.get_submodule("out")(mixed.transpose(0, 1).flatten(1))
    torch.testing.assert_close(out, seen[1][0, 5:8], rtol=1e-5, atol=1e-6)


def test_rows_are_the_positions_that_predict_and_see_nothing_later(model: LanguageModel) -> None:
    made = attention_maps.weights(model, example(targets=3), of=np.ones(LENGTH, bool))
    np.testing.assert_allclose(made.sum(-1), 1.0, rtol=1e-5)
    for row, position in enumerate((5, 6, 7)):
        assert (made[:, :, row, : position + 1] > 0).all()
        assert (made[:, :, row, position + 1 :] == 0).all()


def test_columns_are_the_positions_asked_for(model: LanguageModel) -> None:
    every = attention_maps.weights(model, example(), of=np.ones(LENGTH, bool))
    where = np.isin(np.arange(LENGTH), (1, 4))
    np.testing.assert_array_equal(
        attention_maps.weights(model, example(), of=where), every[..., [1, 4]]
    )


def test_no_hook_remains(model: LanguageModel) -> None:
    attention_maps.weights(model, example(), of=np.ones(LENGTH, bool))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("targets", "vectors", "said"),
    [(0, False, "there is none"), (LENGTH, False, "there is none"), (3, True, "vectors")],
)
def test_what_has_no_map_is_an_error(
    model: LanguageModel, targets: int, vectors: bool, said: str
) -> None:
    one = example(targets=targets)
    if vectors:
        features = (np.zeros((1, 4), np.float32), np.arange(LENGTH) == 1)
        one = Example(tokens=one.tokens, target=one.target, vectors={"features": features})
    with pytest.raises(ConfigError, match=said):
        attention_maps.weights(model, one, of=np.ones(LENGTH, bool))


@given(rows=st.integers(1, 4), columns=st.integers(1, 5), seed=st.integers(0, 1000))
def test_monotone_share_is_the_best_of_all_readings(rows: int, columns: int, seed: int) -> None:
    """Against every way of cutting the columns into stretches."""
    looks = seeding.stream(seed, "looks").random((rows, columns))
    cuts = itertools.combinations_with_replacement(range(columns + 1), rows - 1)
    best = max(
        sum(
            float(looks[row, first:last].sum())
            for row, (first, last) in enumerate(itertools.pairwise((0, *cut, columns)))
        )
        for cut in cuts
    )
    assert attention_maps.monotone_share(looks) == pytest.approx(best / rows)


def test_a_head_that_stares_is_not_monotone() -> None:
    stares = np.zeros((5, 8))
    stares[:, 3] = 1
    assert attention_maps.monotone_share(stares) == pytest.approx(1 / 5)
    assert attention_maps.monotone_share(np.eye(5)[::-1]) == pytest.approx(1 / 5)


def test_the_most_monotone_head_is_found_over_all_examples() -> None:
    """Head 1 of layer 0 reads the first example in order; head 0 of layer 1 reads both."""
    first = np.full((2, 2, 3, 3), 1 / 3)
    second = np.full((2, 2, 2, 4), 1 / 4)
    first[0, 1] = np.eye(3)
    first[1, 0] = 0.9 * np.eye(3)
    second[1, 0, 0] = (0.5, 0.5, 0, 0)
    second[1, 0, 1] = (0, 0, 0.5, 0.5)
    shares = attention_maps.monotone_shares([first, second])
    assert shares.shape == (2, 2)
    assert shares.argmax() == 2
    assert shares[1, 0] == pytest.approx(0.95)
    with pytest.raises(ConfigError, match="no example"):
        attention_maps.monotone_shares([])
