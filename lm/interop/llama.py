"""Our weights and configuration as Hugging Face's Llama has them, and back.

Ours keep query, key and value, and gate and up, in one matrix each. The rotary pairs are the same
(x_i, x_{i+K/2}), so no row moves. The embedding tables are cut to the vocabulary: the rows that
fill them up to a multiple of 64 are read by nobody, and without them no sampler can draw one. What
Llama has not, the projections of continuous inputs, keeps its name after ``unitone.``, which
Transformers passes over.
"""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unitone.errors import CheckpointError, ConfigError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import ModelConfig
from unitone.lm.interop.weight_layout import Entry, fuse, split
from unitone.nn.rotary import RopeScaling
from unitone.nn.transformer import TransformerConfig

logger = logging.getLogger(__name__)

EXTRA = "unitone."
"""Starts the names of weights that are not Llama's."""

_ROTARY = ".rotary_emb.inv_freq"
"""A table that old checkpoints hold; it follows from the config."""
_BUILT: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
"""Fields of config.json that have one value here."""
_MISTRAL = {"sliding_window": 4096, "num_key_value_heads": 8}
"""What a config of type ``mistral`` means where it doesn't say."""


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

    Version 4 takes the rotation from ``rope_theta`` and ``rope_scaling``, 5 from
    ``rope_parameters``, and from the other two where there is a ``rope_scaling``.

    Args:
        config: the model.
        vocabulary: for the ids of ``<bos>``, ``<eos>`` and ``<pad>``.
        dtype: of the weights on disk, as Transformers spells it: ``float32``, ``bfloat16``.
    """
    shape = config.transformer
    rope: dict[str, Any] = {"rope_type": "default"}
    if shape.rope_scaling is not None:
        rope = _rope(shape.rope_scaling)
    described = {
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
        "rope_parameters": rope | {"rope_theta": shape.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": config.tied,
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
        "torch_dtype": dtype,
    }
    return described if shape.rope_scaling is None else described | {"rope_scaling": rope}


def read_llama_config(values: Mapping[str, Any], *, where: str) -> ModelConfig:
    """Return the configuration that a Hugging Face ``config.json`` in the Llama layout describes.

    Raises:
        CheckpointError: it is of a variant that is not built here, or damaged; says which field.
    """
    mistral = values.get("model_type") == "mistral"
    if mistral:
        values = {**_MISTRAL, **values}
    # in this order, as Transformers 5 does where a config has both
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    _refuse_others(values, rope, where=where)
    try:
        dim, heads = int(values["hidden_size"]), int(values["num_attention_heads"])
        width = int(values.get("head_dim") or dim // heads)
        context, window = int(values["max_position_embeddings"]), values.get("sliding_window")
        if mistral and window is not None and window < context:
            logger.warning("%s: sliding window of %d; the context is cut to it", where, window)
            context = int(window)
        return ModelConfig(
            transformer=TransformerConfig(
                dim=dim,
                layers=int(values["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(values.get("num_key_value_heads") or heads),
                ffn=int(values["intermediate_size"]),
                head_width=None if width * heads == dim else width,
                rope_theta=float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0),
                rope_scaling=_read_scaling(values, rope),
                norm_eps=float(values.get("rms_norm_eps", 1e-6)),
            ),
            vocab_size=int(values["vocab_size"]),
            context=context,
            tied=bool(values.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise CheckpointError(f"{where} has no field {error.args[0]!r}") from error
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from error


def _refuse_others(values: Mapping[str, Any], rope: Mapping[str, Any], *, where: str) -> None:
    for name, only in _BUILT.items():
        given = rope.get(name, values.get(name))
        if given is not None and given != only:
            raise CheckpointError(f"{where}: {name} = {given!r} is not supported")
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise CheckpointError(f"{where}: rope parameters by kind of layer are not supported")
    kind = _kind(rope)
    if kind not in ("default", "linear", "llama3"):
        raise CheckpointError(
            f"{where}: rope scaling {kind!r} is not supported; there are linear and llama3"
        )


def _kind(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type") or rope.get("type") or "default"  # "type" before 4.43


def _read_scaling(values: Mapping[str, Any], rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = _kind(rope)
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=float(rope["factor"]))
    old = "original_max_position_embeddings"
    return RopeScaling(
        kind="llama3",
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_context=int(values.get(old) or rope.get(old) or values["max_position_embeddings"]),
    )


def _rope(scaling: RopeScaling) -> dict[str, Any]:
    """Return what Transformers calls rope parameters, without the base."""
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context,
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
