"""OPT: positions, both places of the norm, the cache, and ESPnet's checkpoints."""

import dataclasses
from pathlib import Path

import pytest
import torch

from unitone.errors import CheckpointError, ConfigError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import Vectors
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.interop.opt_weights import (
    from_opt,
    load_espnet,
    opt_config,
    read_opt_config,
    to_opt,
)
from unitone.nn.rotary import RopeScaling
from unitone.nn.transformer import TransformerConfig

SHAPE = TransformerConfig(dim=16, layers=2, heads=2, kv_heads=2, ffn=24)
PRE = OptConfig(transformer=SHAPE, vocab_size=30, context=40, embed_dim=16)
POST = OptConfig(
    transformer=SHAPE, vocab_size=30, context=40, embed_dim=8, pre_norm=False, tied=False
)
BOTH = pytest.mark.parametrize("config", [PRE, POST], ids=["pre-norm", "post-norm"])


def build(config: OptConfig) -> OptModel:
    generator = torch.Generator().manual_seed(0)
    model = OptModel(config, generator=generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no bias or norm at its trivial start
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 30, (rows, length), generator=torch.Generator().manual_seed(2))


@BOTH
@torch.no_grad()
def test_packed_rows_equal_single_ones(config: OptConfig) -> None:
    model, given = build(config), tokens(1, 9)
    first, second = model(given[:, :4]), model(given[:, 4:])
    packed = model(
        given,
        positions=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]),
        segments=torch.tensor([[0] * 4 + [1] * 5]),
    )
    torch.testing.assert_close(packed, torch.cat((first, second), dim=1), atol=1e-5, rtol=1e-5)
    assert model.head(packed).shape == (1, 9, 30)


@BOTH
@torch.no_grad()
def test_cache_equals_no_cache_with_left_padding(config: OptConfig) -> None:
    model, given = build(config), tokens(2, 7)
    start = torch.tensor([0, 3])  # row 1 begins after three slots of padding
    positions = (torch.arange(7) - start[:, None]).clamp(min=0)
    valid = torch.arange(7) >= start[:, None]
    mask = (valid[:, None, :] & torch.ones(7, 7, dtype=torch.bool).tril())[:, None]
    mask = mask | torch.eye(7, dtype=torch.bool)
    cache = model.cache(rows=2, slots=7)
    parts = [
        model(given[:, a:b], positions=positions[:, a:b], mask=mask[:, :, a:b, :b], cache=cache)
        for a, b in ((0, 4), (4, 5), (5, 7))
    ]
    cached = torch.cat(parts, dim=1)
    torch.testing.assert_close(cached[:1], model(given[:1]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cached[1:, 3:], model(given[1:, 3:]), atol=1e-5, rtol=1e-5)


@BOTH
def test_the_future_leaves_no_gradient(config: OptConfig) -> None:
    model = build(config)
    x = model.embed(tokens(1, 6), {}).detach().requires_grad_()
    model.embed = lambda *_: x  # type: ignore[method-assign]
    model(tokens(1, 6))[0, 2].sum().backward()
    assert x.grad is not None
    assert not x.grad[0, 3:].any()
    assert x.grad[0, :3].any(dim=-1).all()


def test_position_of_a_token_is_two_rows_on() -> None:
    model = build(PRE)
    with torch.no_grad():
        model.positions.weight[:2] = torch.nan
        assert model(tokens(1, 40)).isfinite().all()


def test_vectors_are_refused() -> None:
    given = Vectors(values=torch.ones(1, 3), where=torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ConfigError, match="OPT model takes no voice"):
        build(PRE)(tokens(1, 1), vectors={"voice": given})


def test_what_only_llama_has_is_refused() -> None:
    for shape, message in (
        (dataclasses.replace(SHAPE, heads=4), "kv_heads must equal heads"),
        (dataclasses.replace(SHAPE, head_width=10), "OPT has no head_width"),
        (
            dataclasses.replace(SHAPE, rope_scaling=RopeScaling(kind="linear", factor=2.0)),
            "OPT has no rope_scaling",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(PRE, transformer=shape)


@BOTH
def test_there_and_back(config: OptConfig) -> None:
    weights = build(config).state_dict()
    tensors = to_opt(weights, config)
    assert tensors["model.decoder.layers.1.self_attn.v_proj.bias"].shape == (16,)
    back = from_opt(tensors, config, where="x")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name][:30], weights[name][:30]) for name in weights)
    without_model = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    assert from_opt(without_model, config, where="x").keys() == weights.keys()


@BOTH
def test_config_there_and_back(config: OptConfig) -> None:
    values = opt_config(config, Vocabulary.build(text=21), dtype="float32")
    assert read_opt_config(values, where="x") == config
    with pytest.raises(CheckpointError, match="activation_function = 'gelu' is not supported"):
        read_opt_config(values | {"activation_function": "gelu"}, where="x")
    with pytest.raises(CheckpointError, match="has no field 'ffn_dim'"):
        read_opt_config({n: v for n, v in values.items() if n != "ffn_dim"}, where="x")


def espnet_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    named = {
        name.replace("model.decoder.", "lm.decoder.decoder.").replace(
            "lm_head", "lm.lm_head"
        ): tensor
        for name, tensor in tensors.items()
    }
    return {name: tensor.half() for name, tensor in named.items()}


@BOTH
@torch.no_grad()
def test_espnet_checkpoint(config: OptConfig, tmp_path: Path) -> None:
    untied = dataclasses.replace(config, tied=False)
    model = build(untied)
    path = tmp_path / "valid.acc.ave.pth"
    torch.save(espnet_names(to_opt(model.state_dict(), untied)), path)
    loaded = load_espnet(path, heads=2)
    assert loaded.config == untied
    given = tokens(2, 5)
    torch.testing.assert_close(
        loaded.head(loaded(given)), model.head(model(given)), atol=0.02, rtol=0.02
    )
    with pytest.raises(ConfigError, match="16 wide; say how many heads"):
        load_espnet(path)


def test_other_files_are_no_voxtlm(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"lm.embed.weight": torch.ones(3, 4)}, path)
    with pytest.raises(CheckpointError, match="holds no OPT decoder: it has no"):
        load_espnet(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no"):
        load_espnet(path)
