"""Our weights under the names of Hugging Face's Llama, and back.

Ours keep query, key and value, and gate and up, in one matrix each. The rotary pairs are the same
(x_i, x_{i+K/2}), so no row moves. The embedding tables are cut to the vocabulary: the rows that
fill them up to a multiple of 64 are read by nobody, and without them no sampler can draw one. What
Llama has not, the projections of continuous inputs, keeps its name behind ``unitone.``, which
Transformers passes over.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unitone.lm._layout import Entry, fuse, split
from unitone.lm.model import ModelConfig
from unitone.lm.vocabulary import Vocabulary

EXTRA = "unitone."
"""Starts the names of weights that are not Llama's."""

_ROTARY = ".rotary_emb.inv_freq"
"""A table that old checkpoints hold; it follows from the config."""


def to_llama(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return a `LanguageModel`'s weights under Llama's names; views, not copies.

    Raises:
        CheckpointError: they are not the weights of a model with this ``config``.
    """
    return split(weights, _layout(config))


def from_llama(
    tensors: Mapping[str, Tensor], config: ModelConfig, *, where: str
) -> dict[str, Tensor]:
    """Return the weights of a `LanguageModel`; `to_llama` backwards.

    Raises:
        CheckpointError: a tensor is missing or unknown or has another shape; ``where`` is named.
    """
    needed = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.endswith(_ROTARY) and not (config.tied and name == "lm_head.weight")
    }
    return fuse(needed, _layout(config), where=where)


def llama_config(config: ModelConfig, vocabulary: Vocabulary, *, dtype: str) -> dict[str, Any]:
    """Return what Transformers' ``LlamaConfig`` reads.

    Version 4 takes the base of the rotation from ``rope_theta``, 5 from ``rope_parameters``.

    Args:
        config: the model.
        vocabulary: for the ids of ``<bos>``, ``<eos>`` and ``<pad>``.
        dtype: of the weights on disk, as Transformers spells it: ``float32``, ``bfloat16``.
    """
    shape = config.transformer
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": shape.dim,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": config.tied,
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
        "torch_dtype": dtype,
    }


def _layout(config: ModelConfig) -> list[Entry]:
    layers = config.transformer.layers
    entries = [_table(config, ours="embedding.weight", theirs="model.embed_tokens.weight")]
    entries += [entry for number in range(layers) for entry in _block(config, number)]
    entries.append(_whole(config, ours="transformer.norm.weight", theirs="model.norm.weight"))
    if not config.tied:
        entries.append(_table(config, ours="output.weight", theirs="lm_head.weight"))
    widths = (("features", config.features), ("voice", config.voice))
    for kind, width in ((kind, width) for kind, width in widths if width):
        rows = {"0.weight": width, "0.bias": width}
        rows |= dict.fromkeys(("1.weight", "1.bias"), config.transformer.dim)
        for part, count in rows.items():
            name = f"projections.{kind}.{part}"
            entries.append(Entry(ours=name, theirs=(EXTRA + name,), rows=(count,)))
    return entries


def _block(config: ModelConfig, number: int) -> list[Entry]:
    shape = config.transformer
    ours, theirs = f"transformer.blocks.{number}", f"model.layers.{number}"
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention, network = f"{theirs}.self_attn", f"{theirs}.mlp"
    return [
        _whole(
            config, ours=f"{ours}.attention_norm.weight", theirs=f"{theirs}.input_layernorm.weight"
        ),
        Entry(
            ours=f"{ours}.attention.qkv.weight",
            theirs=tuple(f"{attention}.{part}_proj.weight" for part in "qkv"),
            rows=(queries, keys, keys),
        ),
        _whole(config, ours=f"{ours}.attention.out.weight", theirs=f"{attention}.o_proj.weight"),
        _whole(
            config,
            ours=f"{ours}.feed_forward_norm.weight",
            theirs=f"{theirs}.post_attention_layernorm.weight",
        ),
        Entry(
            ours=f"{ours}.feed_forward.gate_up.weight",
            theirs=(f"{network}.gate_proj.weight", f"{network}.up_proj.weight"),
            rows=(shape.ffn, shape.ffn),
        ),
        _whole(
            config, ours=f"{ours}.feed_forward.down.weight", theirs=f"{network}.down_proj.weight"
        ),
    ]


def _whole(config: ModelConfig, *, ours: str, theirs: str) -> Entry:
    return Entry(ours=ours, theirs=(theirs,), rows=(config.transformer.dim,))


def _table(config: ModelConfig, *, ours: str, theirs: str) -> Entry:
    used = config.vocab_size
    return Entry(ours=ours, theirs=(theirs,), rows=(used,), padding=config.rows - used)
