"""Where tensors live: ``auto`` is the first of CUDA, Apple's GPU and the CPU that is there."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unitone.errors import ConfigError
from unitone.processor import bf16_instruction


def resolve(name: str) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        ConfigError: no such device, or it isn't there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: give auto, cpu, cuda, cuda:N or mps") from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise ConfigError(f"--device {name}: there is no such device; `unitone doctor` lists them")
    return device


class _NoFirstValues(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Make networks whose weights are about to be read: on the meta device, no first value drawn.

    That costs neither time nor global randomness; on the meta device a draw alone would import
    torch's compiler, which takes seconds.
    """
    with torch.device("meta"), _NoFirstValues():
        yield


def materialize(module: nn.Module, *, device: torch.device, dtype: torch.dtype) -> None:
    """Give a network on the meta device room for its weights, as `torch.nn.Module.to_empty`.

    What is in them is undefined. Unlike there, sympy isn't imported, and weights stay tied.
    """
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, old in part.named_parameters(recurse=False):
            if id(old) not in made:
                room = torch.empty(old.shape, device=device, dtype=dtype)
                made[id(old)] = nn.Parameter(room, requires_grad=old.requires_grad)
            part.register_parameter(name, made[id(old)])
        for name, buffer in part.named_buffers(recurse=False):
            kept = name not in part._non_persistent_buffers_set
            kind = dtype if buffer.is_floating_point() else buffer.dtype
            room = torch.empty(buffer.shape, device=device, dtype=kind)
            part.register_buffer(name, room, persistent=kept)


def fast_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """Return the precision in which a device multiplies fastest.

    bf16 on GPUs from Ampere on and on CPUs with instructions for it; other CPUs emulate it, five
    times slower than fp32 (measured on a Xeon with AVX-512 VNNI: 61 and 304 GFLOP/s).
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_instruction() else "fp32"
