"""Whisper's encoder from a model that CTranslate2 has converted, as faster-whisper uses them.

``model.bin`` is little endian: a version, the name of the kind of model, its revision and a count;
then each variable as name, rank, dimensions, type, number of bytes and data. A string is its length
with the closing zero in 16 bits, then its characters. Weights are float32, float16 or bfloat16, or
whole numbers q with a ``weight_scale`` s a row (int8) or in all (int16): w = q / s. Most of the
file, the decoder's variables, is not read.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from unitone.errors import CheckpointError

FILE = "model.bin"
_VERSIONS = range(2, 7)  # binary versions with types and aliases, read by CTranslate2 2 to 4
_TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)

_BLOCK = r"encoder/layer_(\d+)"
_NAMES = (  # CTranslate2                                  -> OpenAI
    (r"encoder/(conv[12])/(weight|bias)",                   r"encoder.\1.\2"),
    (r"encoder/position_encodings/encodings",               r"encoder.positional_embedding"),
    (r"encoder/layer_norm/(weight|bias)",                   r"encoder.ln_post.\1"),
    (rf"{_BLOCK}/self_attention/layer_norm/(weight|bias)",  r"encoder.blocks.\1.attn_ln.\2"),
    (rf"{_BLOCK}/self_attention/linear_1/(weight|bias)",    r"encoder.blocks.\1.attn.out.\2"),
    (rf"{_BLOCK}/ffn/layer_norm/(weight|bias)",             r"encoder.blocks.\1.mlp_ln.\2"),
    (rf"{_BLOCK}/ffn/linear_0/(weight|bias)",               r"encoder.blocks.\1.mlp.0.\2"),
    (rf"{_BLOCK}/ffn/linear_1/(weight|bias)",               r"encoder.blocks.\1.mlp.2.\2"),
)  # fmt: skip
_FUSED = re.compile(rf"{_BLOCK}/self_attention/linear_0/(weight|bias)")
_AFFINE = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True)
class _Variable:
    shape: tuple[int, ...]
    dtype: torch.dtype
    data: bytearray

    def tensor(self) -> Tensor:
        return torch.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)


def read(path: Path) -> tuple[dict[str, object], int | None]:
    """Return the encoder's weights under OpenAI's names, and its number of heads if it is there.

    Raises:
        CheckpointError: the file is damaged, no Whisper, or has no encoder.
    """
    try:
        with path.open("rb") as file:
            variables = dict(_variables(file, path))
    except (struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); fetch or convert it again") from error
    heads = variables.pop("encoder/num_heads", None)
    if not variables:
        raise CheckpointError(f"{path} holds no encoder; fetch or convert it again")
    return _openai(variables, path), int(heads.tensor().item()) if heads else None


def _variables(file: BinaryIO, path: Path) -> Iterator[tuple[str, _Variable]]:
    """Yield the variables of the encoder; the file is read up to its last one."""
    size = path.stat().st_size
    (version,) = _unpack(file, "I")
    if version not in _VERSIONS:
        raise CheckpointError(f"{path} is no model of CTranslate2 that can be read")
    kind = _string(file)
    if kind != "WhisperSpec":
        raise CheckpointError(
            f"{path} is a {kind} of CTranslate2; only Whisper has an encoder here"
        )
    _revision, count = _unpack(file, "II")
    for _ in range(count):
        name = _string(file)
        (rank,) = _unpack(file, "B")
        *shape, code, num_bytes = _unpack(file, f"{rank}IBI")
        if code >= len(_TYPES):
            raise CheckpointError(f"{path}: {name} is of type {code}, which is not known")
        numel = num_bytes // _TYPES[code].itemsize
        if num_bytes != torch.Size(shape).numel() * _TYPES[code].itemsize or not numel:
            raise CheckpointError(f"{path} is damaged: {name} has {num_bytes} bytes for {shape}")
        if file.tell() + num_bytes > size:
            raise CheckpointError(f"{path} is cut off within {name}; fetch or convert it again")
        if name.startswith("encoder/"):
            yield name, _Variable(tuple(shape), _TYPES[code], bytearray(file.read(num_bytes)))
        else:
            file.seek(num_bytes, 1)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "H")
    (text,) = _unpack(file, f"{length}s")
    return bytes(text).rstrip(b"\0").decode()


def _openai(variables: dict[str, _Variable], path: Path) -> dict[str, object]:
    weights: dict[str, object] = {}
    for name, variable in variables.items():
        if name.endswith("_scale"):
            continue
        weight = _real(variable, variables.get(f"{name}_scale"), where=f"{path}: {name}")
        head, _, last = name.rpartition("/")
        name = f"{head}/{_AFFINE.get(last, last)}"
        if fused := _FUSED.fullmatch(name):
            for part, rows in zip(("query", "key", "value"), weight.chunk(3), strict=True):
                # a bias of the keys adds the same to all logits of a query; Whisper has none
                if (part, fused[2]) != ("key", "bias"):
                    weights[f"encoder.blocks.{fused[1]}.attn.{part}.{fused[2]}"] = rows
            continue
        known = (found.expand(other) for one, other in _NAMES if (found := re.fullmatch(one, name)))
        weights[next(known, name)] = weight
    return weights


def _real(variable: _Variable, scale: _Variable | None, *, where: str) -> Tensor:
    tensor = variable.tensor()
    if tensor.is_floating_point():
        return tensor
    if scale is None:
        raise CheckpointError(f"{where} is of whole numbers and has no scale; convert it again")
    factors = scale.tensor().float()
    return tensor.float() / factors.reshape(-1, *[1] * (tensor.ndim - 1))
