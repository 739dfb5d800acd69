"""Our weights under Llama's names."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import CheckpointError
from unitone.lm.llama import from_llama, llama_config, to_llama
from unitone.lm.model import LanguageModel, ModelConfig
from unitone.lm.vocabulary import Vocabulary
from unitone.nn.transformer import TransformerConfig

SHAPE = TransformerConfig(dim=24, layers=2, heads=4, kv_heads=2, ffn=40)
CONFIG = ModelConfig(transformer=SHAPE, vocab_size=70, tied=False)


def weights_of(config: ModelConfig) -> dict[str, torch.Tensor]:
    return dict(LanguageModel(config, generator=torch.Generator().manual_seed(1)).state_dict())


@given(
    heads=st.integers(1, 3),
    group=st.integers(1, 3),
    tied=st.booleans(),
    features=st.sampled_from([0, 5]),
    vocab_size=st.integers(1, 130),
)
def test_there_and_back(heads: int, group: int, tied: bool, features: int, vocab_size: int) -> None:
    shape = TransformerConfig(
        dim=4 * heads * group, layers=2, heads=heads * group, kv_heads=heads, ffn=6
    )
    config = ModelConfig(
        transformer=shape, vocab_size=vocab_size, tied=tied, features=features, voice=3
    )
    weights = weights_of(config)
    back = from_llama(to_llama(weights, config), config, where="x")
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        used = vocab_size if name in ("embedding.weight", "output.weight") else len(tensor)
        assert back[name].shape == tensor.shape
        assert torch.equal(back[name][:used], tensor[:used])
        assert not back[name][used:].any()


def test_names_and_shapes_are_llamas() -> None:
    found = {
        name: tuple(tensor.shape) for name, tensor in to_llama(weights_of(CONFIG), CONFIG).items()
    }
    assert found["model.embed_tokens.weight"] == found["lm_head.weight"] == (70, 24)
    assert found["model.layers.1.self_attn.q_proj.weight"] == (24, 24)
    assert found["model.layers.1.self_attn.k_proj.weight"] == (12, 24)
    assert found["model.layers.1.self_attn.o_proj.weight"] == (24, 24)
    assert found["model.layers.0.mlp.up_proj.weight"] == (40, 24)
    assert found["model.layers.0.mlp.down_proj.weight"] == (24, 40)
    assert found["model.norm.weight"] == (24,)
    assert len(found) == 3 + 2 * 9


def test_projections_are_marked_as_ours() -> None:
    config = dataclasses.replace(CONFIG, features=7)
    names = to_llama(weights_of(config), config).keys()
    assert sorted(name for name in names if name.startswith("unitone.")) == [
        f"unitone.projections.features.{part}"
        for part in ("0.bias", "0.weight", "1.bias", "1.weight")
    ]


def test_what_old_and_tied_checkpoints_hold_beside_is_passed_over() -> None:
    config = dataclasses.replace(CONFIG, tied=True)
    tensors = to_llama(weights_of(config), config)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    assert "output.weight" not in from_llama(tensors, config, where="x")


def test_wrong_tensors_are_named() -> None:
    tensors = to_llama(weights_of(CONFIG), CONFIG)
    with pytest.raises(CheckpointError, match=r"best lacks the tensor 'model\.norm\.weight'"):
        from_llama(
            {n: t for n, t in tensors.items() if n != "model.norm.weight"}, CONFIG, where="best"
        )
    more = {"model.layers.2.mlp.up_proj.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"no known part, 'model\.layers\.2"):
        from_llama(tensors | more, CONFIG, where="best")
    wrong = {"model.layers.0.self_attn.k_proj.weight": torch.ones(24, 24)}
    with pytest.raises(CheckpointError, match=r"k_proj.*not of 12 rows"):
        from_llama(tensors | wrong, CONFIG, where="best")
    wrong = {"model.layers.0.self_attn.k_proj.weight": torch.ones(12, 25)}
    with pytest.raises(CheckpointError, match="differ in width"):
        from_llama(tensors | wrong, CONFIG, where="best")


def test_config_has_what_both_versions_of_transformers_read() -> None:
    vocabulary = Vocabulary.build(text=61)
    values = llama_config(CONFIG, vocabulary, dtype="bfloat16")
    assert values["rope_theta"] == values["rope_parameters"]["rope_theta"] == 10_000.0
    assert values["num_key_value_heads"] == 2
    assert values["vocab_size"] == 70
    assert (values["pad_token_id"], values["bos_token_id"], values["eos_token_id"]) == (0, 1, 2)
    assert values["torch_dtype"] == "bfloat16"
