"""A golden case: what is drawn once and stored, and what the code makes of it.

Inputs (weights, waveforms, units) come from seeded generators when a case's file is made, and from
the file ever after. Of the outputs, ids have to be equal; floats may differ by what another
processor's order of summation does to them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]

HERE = Path(__file__).resolve().parent
RTOL, ATOL = 1e-5, 1e-6


@dataclass(frozen=True, kw_only=True)
class Case:
    draw: Callable[[], Tensors]
    """Makes the inputs."""
    run: Callable[[Tensors, Path], Tensors]
    """Makes the outputs; the path is a folder for files."""
    rtol: float = RTOL
    atol: float = ATOL


def read(path: Path) -> tuple[Tensors, Tensors]:
    """Return the inputs and outputs in a case's file."""
    stored = load_file(path)
    return part(stored, "in."), part(stored, "out.")


def write(path: Path, inputs: Tensors, outputs: Tensors) -> None:
    """Write a case's file; the same tensors give the same bytes."""
    tensors = {f"in.{name}": value for name, value in inputs.items()}
    tensors |= {f"out.{name}": value for name, value in outputs.items()}
    save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, path)


def part(tensors: Tensors, start: str) -> Tensors:
    """Return the tensors whose names begin so, without it."""
    return {n.removeprefix(start): value for n, value in tensors.items() if n.startswith(start)}


def named(start: str, tensors: Tensors) -> Tensors:
    """Undo `part`."""
    return {f"{start}{name}": value for name, value in tensors.items()}


def generator(seed: int) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def shaken(weights: Tensors, seed: int, *, scale: float = 0.1) -> Tensors:
    """Return the weights with noise on them, so that no bias is zero and no gain is one."""
    draw = generator(seed)
    return {
        name: value + scale * torch.randn(value.shape, generator=draw)
        for name, value in sorted(weights.items())
    }


def to_bytes(value: str | bytes) -> Tensor:
    """Return text or bytes as a tensor."""
    raw = value.encode() if isinstance(value, str) else value
    return torch.from_numpy(np.frombuffer(raw, np.uint8).copy())


def from_bytes(value: Tensor) -> bytes:
    """Undo `to_bytes`."""
    return value.numpy().tobytes()


def waveforms(*seconds: float) -> tuple[Tensor, Tensor]:
    """Return synthetic speech in 16 bits (B, N), as stored, and its lengths (B,)."""
    from tests.conftest import synthetic_speech

    waves = [torch.from_numpy(synthetic_speech(each, 3 + n)) for n, each in enumerate(seconds)]
    rows = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    return (rows * 32767).round().short(), torch.tensor([len(wave) for wave in waves])
