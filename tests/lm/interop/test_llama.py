"""Our weights under Llama's names."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import CheckpointError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.interop.llama import from_llama, llama_config, read_llama_config, to_llama
from unitone.nn.rotary import RopeScaling
from unitone.nn.transformer import TransformerConfig

SHAPE = TransformerConfig(dim=24, layers=2, heads=4, kv_heads=2, ffn=40)
CONFIG = ModelConfig(transformer=SHAPE, vocab_size=70, tied=False)
WIDE = dataclasses.replace(CONFIG, transformer=dataclasses.replace(SHAPE, head_width=10))
SCALING = "rope_scaling"
LINEAR = RopeScaling(kind="linear", factor=2.0)
LLAMA3 = RopeScaling(
    kind="llama3", factor=8.0, low_freq_factor=1.5, high_freq_factor=3.0, original_context=512
)


def scaled(scaling: RopeScaling | None, **changes: Any) -> ModelConfig:
    return dataclasses.replace(
        CONFIG, transformer=dataclasses.replace(SHAPE, rope_scaling=scaling, **changes)
    )


def described(config: ModelConfig) -> dict[str, Any]:
    return llama_config(config, Vocabulary.build(text=61), dtype="float32")


def weights_of(config: ModelConfig) -> dict[str, torch.Tensor]:
    return dict(LanguageModel(config, generator=torch.Generator().manual_seed(1)).state_dict())


@given(
    heads=st.integers(1, 3),
    group=st.integers(1, 3),
    tied=st.booleans(),
    features=st.sampled_from([0, 5]),
    vocab_size=st.integers(1, 130),
    width=st.sampled_from([None, 2, 6]),
)
def test_there_and_back(
    heads: int, group: int, tied: bool, features: int, vocab_size: int, width: int | None
) -> None:
    shape = TransformerConfig(
        dim=4 * heads * group,
        layers=2,
        heads=heads * group,
        kv_heads=heads,
        ffn=6,
        head_width=width,
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
    wide = to_llama(weights_of(WIDE), WIDE)
    assert wide["model.layers.1.self_attn.v_proj.weight"].shape == (20, 24)
    assert wide["model.layers.1.self_attn.o_proj.weight"].shape == (24, 40)


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
    with pytest.raises(CheckpointError, match=r"best has no tensor 'model\.norm\.weight'"):
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
    values = llama_config(CONFIG, Vocabulary.build(text=61), dtype="bfloat16")
    assert values["rope_theta"] == values["rope_parameters"]["rope_theta"] == 10_000.0
    assert values["num_key_value_heads"] == 2
    assert values["vocab_size"] == 70
    assert (values["pad_token_id"], values["bos_token_id"], values["eos_token_id"]) == (0, 1, 2)
    assert values["torch_dtype"] == "bfloat16"
    assert "rope_scaling" not in values
    assert values["head_dim"] == 6


@pytest.mark.parametrize("scaling", [None, LINEAR, LLAMA3], ids=["none", "linear", "llama3"])
@pytest.mark.parametrize("width", [None, 4, 10])
def test_every_spelling_of_the_config_is_read(
    scaling: RopeScaling | None, width: int | None
) -> None:
    config = scaled(scaling, head_width=width, rope_theta=5e5)
    both = described(config)
    new = {name: value for name, value in both.items() if name not in ("rope_theta", SCALING)}
    old = {name: value for name, value in both.items() if name != "rope_parameters"}
    oldest = dict(old)
    if scaling is not None:
        values = dict(old[SCALING])
        oldest[SCALING] = {"type": values.pop("rope_type"), **values}
    for values in (both, new, old, oldest):
        assert read_llama_config(values, where="x") == config


def test_where_the_old_context_is_said() -> None:
    """Beside the rope parameters, in them, or nowhere: then it is the context itself."""
    values, old = described(scaled(LLAMA3)), "original_max_position_embeddings"

    def found(**changes: Any) -> int:
        scaling = read_llama_config(values | changes, where="x").transformer.rope_scaling
        assert scaling is not None
        return scaling.original_context

    unsaid = {name: value for name, value in values[SCALING].items() if name != old}
    assert found() == 512
    assert found(original_max_position_embeddings=300) == 300
    assert found(rope_scaling=unsaid) == CONFIG.context


def test_what_a_mistral_does_not_say() -> None:
    values = described(CONFIG) | {"model_type": "mistral", "max_position_embeddings": 8192}
    del values["num_key_value_heads"]
    config = read_llama_config(values | {"num_attention_heads": 8}, where="x")
    assert (config.context, config.transformer.kv_heads) == (4096, 8)
    config = read_llama_config(values | {"model_type": "llama", "sliding_window": 16}, where="x")
    assert (config.context, config.transformer.kv_heads) == (8192, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling 'yarn' is not supp"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope scaling 'dynamic'.*llama3"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope scaling 'longrope' is not supp"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "by kind of layer"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5 is not"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5 is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "has no field 'low_freq_f"),
        ({"rope_scaling": {"rope_type": "linear"}}, "x has no field 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "x: factor .* at least 1, got 0.5"),
        ({"rope_scaling": {"type": "linear", "factor": None}}, "x: .*not 'NoneType'"),
        ({"attention_bias": True}, "attention_bias = True is not supported"),
        ({"mlp_bias": True}, "mlp_bias = True is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = .* is not supported"),
        ({"head_dim": 7}, "x: head_width must be even and at least 2, got 7"),
        ({"hidden_size": 26, "head_dim": 8}, "x: dim 26 must be a multiple of heads 4"),
    ],
)
def test_other_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_llama_config(described(CONFIG) | changes, where="x")
