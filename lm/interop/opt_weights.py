"""OPT's weights as Hugging Face names them, and as ESPnet's VoxtLM does, read without ESPnet."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitone import devices
from unitone.errors import CheckpointError, ConfigError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.interop.opt import OFFSET, OptConfig, OptModel
from unitone.lm.interop.weight_layout import Entry, fuse, read_torch, split
from unitone.nn.transformer import TransformerConfig
from unitone.train.checkpoint import load_weights

_HEADS = {768: 12, 1024: 16, 2048: 32, 2560: 32, 4096: 32, 5120: 40, 7168: 56, 9216: 72}
"""Heads of the published sizes by width, for checkpoints that come without a config."""


def to_opt(weights: Mapping[str, Tensor], config: OptConfig) -> dict[str, Tensor]:
    """Return an `OptModel`'s weights under Hugging Face's names; views, not copies.

    Raises:
        CheckpointError: they are not the weights of a model with this ``config``.
    """
    return split(weights, _layout(config))


def from_opt(tensors: Mapping[str, Tensor], config: OptConfig, *, where: str) -> dict[str, Tensor]:
    """Return the weights of an `OptModel` from Hugging Face's or ESPnet's names.

    Raises:
        CheckpointError: a tensor is missing or unknown or has another shape; ``where`` is named.
    """
    named = _bare(tensors)
    if config.tied:
        named.pop("lm_head.weight", None)
    return fuse(named, _layout(config), where=where)


def opt_config(config: OptConfig, vocabulary: Vocabulary, *, dtype: str) -> dict[str, Any]:
    """Return what Transformers' ``OPTConfig`` reads; ``dtype`` as in `llama_config`."""
    shape = config.transformer
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "vocab_size": config.vocab_size,
        "hidden_size": shape.dim,
        "ffn_dim": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": config.context,
        "word_embed_proj_dim": config.embed_dim,
        "do_layer_norm_before": config.pre_norm,
        "_remove_final_layer_norm": False,
        "activation_function": "relu",
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "dropout": shape.dropout,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "tie_word_embeddings": config.tied,
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
        "torch_dtype": dtype,
    }


def read_opt_config(values: Mapping[str, Any], *, where: str) -> OptConfig:
    """Return the configuration that a Hugging Face ``config.json`` of type ``opt`` describes.

    Raises:
        CheckpointError: it is of a variant that is not built here; says which field.
    """
    built = {
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "activation_function": "relu",
        "_remove_final_layer_norm": False,
    }
    for name, only in built.items():
        if values.get(name, only) != only:
            raise CheckpointError(f"{where}: {name} = {values[name]!r} is not supported")
    try:
        dim, heads = int(values["hidden_size"]), int(values["num_attention_heads"])
        return OptConfig(
            transformer=TransformerConfig(
                dim=dim,
                layers=int(values["num_hidden_layers"]),
                heads=heads,
                kv_heads=heads,
                ffn=int(values["ffn_dim"]),
            ),
            vocab_size=int(values["vocab_size"]),
            context=int(values["max_position_embeddings"]),
            embed_dim=int(values.get("word_embed_proj_dim") or dim),
            pre_norm=bool(values.get("do_layer_norm_before", True)),
            tied=bool(values.get("tie_word_embeddings", True)),
        )
    except KeyError as error:
        raise CheckpointError(f"{where} has no field {error.args[0]!r}") from error


def load_espnet(path: Path, *, heads: int | None = None) -> OptModel:
    """Read the language model of an ESPnet VoxtLM checkpoint (``.pth``), on the CPU in float32.

    Its token ids are ESPnet's: ``token_list`` in the ``config.yaml`` beside it, 0 ``<blank>``
    (padding), 1 ``<unk>``, last ``<sos/eos>``.

    Args:
        path: a state dictionary, read without running anything in it and without ESPnet.
        heads: attention heads; default those of the published OPT of this width.

    Raises:
        CheckpointError: it is damaged, is no VoxtLM on OPT, or has not all weights.
        ConfigError: ``heads`` is needed and not given.
    """
    tensors = read_torch(path)
    config = _infer(_bare(tensors), heads=heads, where=str(path))
    with devices.without_weights():
        model = OptModel(config)
    devices.materialize(model, device=torch.device("cpu"), dtype=torch.float32)
    load_weights(model, from_opt(tensors, config, where=str(path)), where=str(path))
    return model.eval()


def _infer(named: Mapping[str, Tensor], *, heads: int | None, where: str) -> OptConfig:
    """Read the configuration off the shapes of the weights."""
    first = "model.decoder.layers.0.fc1.weight"
    needed = (first, "model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight")
    for name in needed:
        if name not in named or named[name].ndim != 2:
            raise CheckpointError(f"{where} holds no OPT decoder: it has no {name!r}")
    (ffn, dim), (vocab_size, embed_dim), (positions, _) = (named[name].shape for name in needed)
    if heads is None and dim not in _HEADS:
        raise ConfigError(f"{where}: no published OPT is {dim} wide; say how many heads it has")
    heads = heads or _HEADS[dim]
    blocks = {found[1] for name in named if (found := re.search(r"\.layers\.(\d+)\.", name))}
    return OptConfig(
        transformer=TransformerConfig(
            dim=dim, layers=len(blocks), heads=heads, kv_heads=heads, ffn=ffn
        ),
        vocab_size=vocab_size,
        context=positions - OFFSET,
        embed_dim=embed_dim,
        pre_norm="model.decoder.final_layer_norm.weight" in named,
        tied="lm_head.weight" not in named,
    )


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors named as in Transformers' ``OPTForCausalLM``."""
    decoder = re.compile(r"^(?:lm\.decoder\.|model\.)?decoder\.")
    return {
        decoder.sub("model.decoder.", name).replace("lm.lm_head.", "lm_head."): tensor
        for name, tensor in tensors.items()
    }


def _layout(config: OptConfig) -> list[Entry]:
    shape, used, root = config.transformer, config.vocab_size, "model.decoder"
    padding = config.rows - used

    def table(ours: str, theirs: str) -> Entry:
        return Entry(ours=ours, theirs=(theirs,), rows=(used,), padding=padding)

    entries = [
        table("embedding.weight", f"{root}.embed_tokens.weight"),
        _same("positions.weight", f"{root}.embed_positions.weight", config.context + OFFSET),
    ]
    if config.projected:
        entries.append(_same("project_in.weight", f"{root}.project_in.weight", shape.dim))
        width = config.embed_dim
        entries.append(_same("project_out.weight", f"{root}.project_out.weight", width))
    for number in range(shape.layers):
        ours, theirs = f"layers.{number}", f"{root}.layers.{number}"
        for kind in ("weight", "bias"):
            attention = f"{theirs}.self_attn"
            names = tuple(f"{attention}.{part}_proj.{kind}" for part in "qkv")
            entries.append(Entry(ours=f"{ours}.qkv.{kind}", theirs=names, rows=(shape.dim,) * 3))
            for one, other, rows in (
                ("attention_norm", "self_attn_layer_norm", shape.dim),
                ("out", "self_attn.out_proj", shape.dim),
                ("feed_forward_norm", "final_layer_norm", shape.dim),
                ("up", "fc1", shape.ffn),
                ("down", "fc2", shape.dim),
            ):
                entries.append(_same(f"{ours}.{one}.{kind}", f"{theirs}.{other}.{kind}", rows))
    if config.pre_norm:
        for kind in ("weight", "bias"):
            entries.append(_same(f"norm.{kind}", f"{root}.final_layer_norm.{kind}", shape.dim))
    if not config.tied:
        entries.append(table("output.weight", "lm_head.weight"))
    return entries


def _same(ours: str, theirs: str, rows: int) -> Entry:
    return Entry(ours=ours, theirs=(theirs,), rows=(rows,))
