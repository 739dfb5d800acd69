"""Weights under two sets of names: ours, where matrices that work together are one, and another's.

A layout is a list of entries, one for each weight of ours: the names that its rows have elsewhere
and how many rows each name gets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unitone.errors import CheckpointError
from unitone.safe_pickle import load_torch


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A weight of ours and what it is called elsewhere, in the order of its rows."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...]
    """Rows (first axis) of each of ``theirs``."""
    padding: int = 0
    """Rows of ours after them that nothing reads: an embedding table's, up to a multiple of 64."""


def split(weights: Mapping[str, Tensor], layout: Sequence[Entry]) -> dict[str, Tensor]:
    """Return the weights under the other names; views of ours, the padding left out.

    Raises:
        CheckpointError: a weight is missing or unknown.
    """
    _check_names(weights, {entry.ours for entry in layout}, where="the model")
    found: dict[str, Tensor] = {}
    for entry in layout:
        whole = weights[entry.ours]
        parts = whole[: len(whole) - entry.padding].split(list(entry.rows))
        found |= dict(zip(entry.theirs, parts, strict=True))
    return found


def fuse(
    tensors: Mapping[str, Tensor], layout: Sequence[Entry], *, where: str
) -> dict[str, Tensor]:
    """Return the weights under our names, the padding filled with zeros.

    Raises:
        CheckpointError: a tensor is missing or unknown, or has another number of rows.
    """
    _check_names(tensors, {name for entry in layout for name in entry.theirs}, where=where)
    found: dict[str, Tensor] = {}
    for entry in layout:
        parts = [tensors[name] for name in entry.theirs]
        for name, part, rows in zip(entry.theirs, parts, entry.rows, strict=True):
            if part.ndim == 0 or len(part) != rows:
                shape = tuple(part.shape)
                raise CheckpointError(f"{where}: tensor {name!r} is {shape}, not of {rows} rows")
        if entry.padding:
            parts.append(parts[0].new_zeros((entry.padding, *parts[0].shape[1:])))
        try:
            found[entry.ours] = parts[0] if len(parts) == 1 else torch.cat(parts)
        except RuntimeError as error:
            names = ", ".join(entry.theirs)
            raise CheckpointError(f"{where}: the tensors {names} differ in width") from error
    return found


def read_torch(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a PyTorch state dictionary, reading it without running anything in it.

    Raises:
        CheckpointError: it is missing or damaged, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; fetch it again")
    content = load_torch(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no state dictionary")
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _check_names(given: Mapping[str, Tensor], expected: set[str], *, where: str) -> None:
    for name in sorted(expected - given.keys()):
        raise CheckpointError(f"{where} has no tensor {name!r}")
    for name in sorted(given.keys() - expected):
        raise CheckpointError(f"{where} has a tensor of no known part, {name!r}")
