"""T2V2 in a model directory; `unitone.lm.family` calls these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitone import devices
from unitone.config import from_dict, to_dict
from unitone.lm import tasks
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.t2v2.model import T2V2, T2V2Config
from unitone.lm.t2v2.table import TASKS, T2V2Task
from unitone.train import checkpoint


@dataclass(frozen=True, kw_only=True)
class _Stored:
    tasks: tuple[str, ...]
    t2v2: T2V2Config


def to_json(model: T2V2, table: Sequence[T2V2Task]) -> dict[str, Any]:
    """Return what is stored under ``"unitone"`` of config.json."""
    return to_dict(_Stored(tasks=tuple(row.name for row in table), t2v2=model.config))


def from_json(values: Mapping[str, Any], *, where: str) -> tuple[T2V2, tuple[T2V2Task, ...]]:
    """Return the model, without weights (on the meta device), and its table.

    Raises:
        ConfigError: a field is unknown, missing, or of the wrong type; or there is no such task.
    """
    stored = from_dict(_Stored, values, where=where)
    with devices.without_weights():
        return T2V2(stored.t2v2), tasks.select(TASKS, stored.tasks)


def describe(model: T2V2, vocabulary: Vocabulary, *, dtype: torch.dtype) -> dict[str, Any]:
    """Return what other toolkits read: nothing does."""
    return {}


def layouts(table: Sequence[T2V2Task]) -> dict[str, str]:
    """Return how the model sees each task, for the model card."""
    return {row.name: f"{' + '.join(row.task.inputs)} -> {row.task.output}" for row in table}


def to_tensors(model: T2V2) -> dict[str, Tensor]:
    """Return the weights as they are stored, on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def load_tensors(model: T2V2, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Give the model its weights.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape.
    """
    checkpoint.load_weights(model, tensors, where=where)
