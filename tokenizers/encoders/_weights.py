"""Read an SSL encoder's weights from any of their published forms, under one set of names.

Forms: a Hugging Face directory (``config.json`` beside safetensors or ``pytorch_model.bin``, whole
or in shards), a fairseq, unilm, s3prl or OpenAI ``.pt`` file, and a directory of CTranslate2 with
its ``model.bin``. The same weights give the same ``Checkpoint``, bit for bit, whatever form they
come from, so features and ``weight_hash`` agree; of weights that a conversion has rounded
(CTranslate2's int8, or float16 of what was float32) the hash is another.

What the tensors do not say is taken from the checkpoint's own configuration where it has one
(``Hints``); where it has none, the family's rule applies.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitone import files
from unitone.errors import CheckpointError
from unitone.safe_pickle import load_torch, plain
from unitone.tokenizers.encoders import _ctranslate2, _hub
from unitone.tokenizers.encoders._names import rename
from unitone.train.checkpoint import weight_hash

FAMILIES = ("hubert", "wavlm", "wav2vec2", "unispeech-sat", "unispeech", "whisper")
"""Kinds of models that are read, as Transformers calls them; fairseq says the same."""


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What a checkpoint's own configuration says; ``None`` where it says nothing."""

    num_heads: int | None = None
    pre_norm: bool | None = None
    normalize: bool | None = None
    strides: tuple[int, ...] | None = None
    max_distance: int | None = None
    epsilon: float | None = None
    family: str | None = None
    """What the configuration calls the kind of model: ``hubert``, ``wav2vec2``, …"""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An encoder's weights under canonical names, float32 on the CPU, weight norm folded."""

    weights: Mapping[str, Tensor]
    hints: Hints
    where: str
    """The file or directory, for error messages."""

    def weight_hash(self) -> str:
        """Return the SHA-256 over names, shapes and bytes of all weights, in order of name."""
        return weight_hash(self.weights)


def read(path: Path) -> Checkpoint:
    """Read the checkpoint at ``path``, a directory or a file.

    Raises:
        CheckpointError: it is absent, unreadable, of an unknown form, or holds a foreign weight.
    """
    if path.is_dir():
        raw, hints = _read_directory(path)
    elif path.name == _ctranslate2.FILE and path.exists():
        raw, hints = _read_ctranslate2(path)
    elif path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: pass the directory, which holds its config.json too")
    elif path.exists():
        raw, hints = _read_pickle(path)
    else:
        raise CheckpointError(f"there is no checkpoint at {path}")
    weights = canonical(raw, where=str(path))
    if not weights:
        raise CheckpointError(f"{path} holds no encoder, only what belongs to a decoder or a head")
    return Checkpoint(weights=weights, hints=hints, where=str(path))


def canonical(raw: Mapping[str, object], *, where: str) -> dict[str, Tensor]:
    """Rename the weights, drop heads, convert to float32 and fold the weight norm.

    Raises:
        CheckpointError: a name is unknown; the message lists all such names.
    """
    weights: dict[str, Tensor] = {}
    unknown: list[str] = []
    for raw_name, value in raw.items():
        name = rename(raw_name)
        if name is None:
            unknown.append(raw_name)
        elif name and isinstance(value, Tensor):
            weights[name] = value.detach().to(torch.float32)
    if unknown:
        raise CheckpointError(f"{where} holds weights of no known part: {listing(unknown)}")
    if "position.g" in weights and "position.v" in weights:
        magnitude, direction = weights.pop("position.g"), weights.pop("position.v")
        weights["position.weight"] = fold_weight_norm(magnitude, direction)
    return weights


def fold_weight_norm(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Return g v / |v| with the norm over all dimensions but the last (``dim=2``, §3 of HuBERT).

    The norm is taken in float64 and rounded once, so that the result, and the hash over it, do not
    depend on the machine's order of summation.
    """
    norm = direction.double().square().sum(dim=(0, 1), keepdim=True).sqrt().float()
    return direction * (magnitude / norm)


def listing(names: Iterable[str], *, most: int = 12) -> str:
    """Return ``names`` for an error message, the first ``most`` of them spelled out."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + rest


def _read_directory(path: Path) -> tuple[dict[str, object], Hints]:
    held = [path / name for name in _hub.WEIGHT_FILES if (path / name).exists()]
    if not held:
        raise CheckpointError(f"{path} holds none of {', '.join(_hub.WEIGHT_FILES)}")
    if held[0].name == _ctranslate2.FILE:
        return _read_ctranslate2(held[0])
    config_file = path / "config.json"
    if not config_file.exists():
        raise CheckpointError(f"{path} has no config.json; pass a Hugging Face model directory")
    config = files.read_json(config_file, cure="fetch it again")
    if not isinstance(config, dict):
        raise CheckpointError(f"{config_file} is damaged: it holds no object; fetch it again")
    return _read_weights(held[0]), _hugging_face_hints(config, where=path)


def _read_ctranslate2(file: Path) -> tuple[dict[str, object], Hints]:
    weights, num_heads = _ctranslate2.read(file)
    return weights, checked(where=file, num_heads=num_heads, family="whisper")


def _read_weights(file: Path) -> dict[str, object]:
    if file.name.endswith(".index.json"):
        shards = _hub.shards_of(file)
        absent = [shard for shard in shards if not (file.parent / shard).exists()]
        if absent:
            raise CheckpointError(f"{file.parent} has no {listing(absent)}; fetch it again")
        weights: dict[str, object] = {}
        for shard in shards:
            weights |= _read_weights(file.parent / shard)
        return weights
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(file))
        except SafetensorError as error:
            raise CheckpointError(f"{file} is damaged ({error}); fetch it again") from error
    return _state_dict(load_torch(file), where=file)


def _state_dict(value: object, *, where: Path) -> dict[str, object]:
    if not isinstance(value, dict) or not any(isinstance(item, Tensor) for item in value.values()):
        raise CheckpointError(f"{where} holds no state dictionary")
    return {str(name): item for name, item in value.items() if isinstance(item, Tensor)}


def _hugging_face_hints(config: Mapping[str, Any], *, where: Path) -> Hints:
    for field in ("hidden_act", "feat_extract_activation", "activation_function"):
        if config.get(field, "gelu") != "gelu":
            raise CheckpointError(f"{where}: {field} = {config[field]!r} is not supported")
    family = config.get("model_type")
    if family not in (None, *FAMILIES):
        raise CheckpointError(
            f"{where}: a {family} is not supported, though its weights look alike; supported are "
            + ", ".join(FAMILIES)
        )
    strides = config.get("conv_stride")
    return checked(
        where=where,
        num_heads=config.get("encoder_attention_heads", config.get("num_attention_heads")),
        pre_norm=config.get("do_stable_layer_norm"),
        # The published hubert-base's preprocessor asks for a normalized waveform, its training did
        # not do it: normalization goes with the layer-norm front end, as in fairseq.
        normalize=None,
        strides=tuple(strides) if isinstance(strides, list) else strides,
        max_distance=config.get("max_bucket_distance"),
        epsilon=config.get("layer_norm_eps"),
        family=family,
    )


def checked(*, where: Path, **hints: Any) -> Hints:
    """Return the hints of a configuration, which may hold anything.

    Raises:
        CheckpointError: one has a type that it can't have.
    """
    whole = ("num_heads", "max_distance")
    for name, value in hints.items():
        if value is None or name == "family":
            continue
        values = value if isinstance(value, tuple) else (value,)
        if name in ("pre_norm", "normalize"):
            right = isinstance(value, bool | int)
        elif name == "epsilon":
            right = isinstance(value, int | float) and 0 < value < 1
        else:
            right = (name in whole) != isinstance(value, tuple) and all(
                isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in values
            )
        if not right:
            raise CheckpointError(f"{where}: its configuration says {name} = {value!r}")
    return Hints(**hints)


def _read_pickle(path: Path) -> tuple[dict[str, object], Hints]:
    top = load_torch(path)
    if not isinstance(top, dict):
        raise CheckpointError(f"{path} is no fairseq, unilm or s3prl checkpoint, nor OpenAI's")
    if isinstance(top.get("model_state_dict"), dict) and isinstance(top.get("dims"), dict):
        heads = top["dims"].get("n_audio_head")
        hints = checked(where=path, num_heads=heads, family="whisper")
        return _state_dict(top["model_state_dict"], where=path), hints
    for key in ("model", "model_weight"):
        if isinstance(top.get(key), dict):
            return _state_dict(top[key], where=path), _fairseq_hints(top, where=path)
    raise CheckpointError(
        f"{path} holds no 'model', 'model_weight' or 'model_state_dict'; its keys are "
        + listing(map(str, top))
    )


def _fairseq_hints(top: Mapping[str, Any], *, where: Path) -> Hints:
    """Read ``cfg`` (fairseq: model and task; unilm: flat), legacy ``args``, or s3prl's two."""
    config = plain(top.get("cfg") or top.get("args") or {})
    config = config if isinstance(config, dict) else {}
    model = plain(top.get("model_cfg")) or config.get("model", config)
    task = plain(top.get("task_cfg")) or config.get("task", config)
    model = model if isinstance(model, dict) else {}
    task = task if isinstance(task, dict) else {}
    inner = model.get("w2v_args")  # a fine-tuned model keeps its parent's configuration here
    if isinstance(inner, dict):
        model = inner.get("model", inner)
    layers = re.findall(r"\(\s*\d+\s*,\s*\d+\s*,\s*(\d+)\s*\)\]?(?:\s*\*\s*(\d+))?",
                        str(model.get("conv_feature_layers") or ""))  # fmt: skip
    strides = tuple(int(step) for step, times in layers for _ in range(int(times or 1)))
    family = str(model.get("_name") or model.get("arch") or "")
    if family.startswith("data2vec"):
        raise CheckpointError(f"{family} is not supported; supported are {', '.join(FAMILIES)}")
    return checked(
        where=where,
        family=next((name for name in FAMILIES if family.startswith(name)), None),
        num_heads=model.get("encoder_attention_heads"),
        pre_norm=model.get("layer_norm_first"),
        normalize=task.get("normalize", model.get("normalize")),
        strides=strides or None,
        max_distance=model.get("max_distance"),
    )
