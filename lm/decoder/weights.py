"""The decoder-only model in a model directory: Llama's (or OPT's) names, and our table of tasks.

`unitone.lm.family` calls these; a directory is what Transformers loads, with our part under
``"unitone"`` of its ``config.json``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitone import devices
from unitone.config import from_dict, to_dict
from unitone.errors import CheckpointError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder import template
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.template import DecoderTask
from unitone.lm.interop.llama import from_llama, llama_config, to_llama
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.interop.opt_weights import from_opt, opt_config, to_opt
from unitone.train import checkpoint

Model = LanguageModel | OptModel


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Which of the two models it is."""

    llama: ModelConfig | None = None
    opt: OptConfig | None = None


def to_json(model: Model, table: Sequence[DecoderTask]) -> dict[str, Any]:
    """Return what is stored under ``"unitone"`` of config.json."""
    kind = "llama" if isinstance(model, LanguageModel) else "opt"
    return {"tasks": template.to_json(table), kind: to_dict(model.config)}


def from_json(values: Mapping[str, Any], *, where: str) -> tuple[Model, tuple[DecoderTask, ...]]:
    """Return the model, without weights (on the meta device), and its table.

    Raises:
        ConfigError: a field is unknown, missing, or of the wrong type.
        CheckpointError: the model is neither of the two.
    """
    if "tasks" not in values:
        raise CheckpointError(f"{where}: field 'tasks' is missing")
    table = template.from_json(values["tasks"], where=f"{where}: tasks")
    rest = {name: value for name, value in values.items() if name != "tasks"}
    shape = from_dict(_Shape, rest, where=where)
    if (shape.llama is None) == (shape.opt is None):
        raise CheckpointError(f"{where}: exactly one of llama and opt must be given")
    with devices.without_weights():
        if shape.llama is not None:
            return LanguageModel(shape.llama), table
        assert shape.opt is not None
        return OptModel(shape.opt), table


def describe(model: Model, vocabulary: Vocabulary, *, dtype: torch.dtype) -> dict[str, Any]:
    """Return the config that Transformers reads; ``dtype`` is that of the weights on disk."""
    name = str(dtype).removeprefix("torch.")
    if isinstance(model, OptModel):
        return opt_config(model.config, vocabulary, dtype=name)
    return llama_config(model.config, vocabulary, dtype=name)


def to_tensors(model: Model) -> dict[str, Tensor]:
    """Return the weights as they are stored: on the CPU, under Llama's or OPT's names."""
    given = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if isinstance(model, OptModel):
        return to_opt(given, model.config)
    return to_llama(given, model.config)


def load_tensors(model: Model, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Give the model its weights, from what `to_tensors` returned.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape.
    """
    if isinstance(model, OptModel):
        weights = from_opt(tensors, model.config, where=where)
    else:
        weights = from_llama(tensors, model.config, where=where)
    checkpoint.load_weights(model, weights, where=where)


def layouts(table: Sequence[DecoderTask]) -> dict[str, str]:
    """Return how the model sees each task, for the model card."""
    return {row.name: row.template for row in table}
