"""Start from a pretrained text model: its weights, its embeddings where we share a token.

The directory is Hugging Face's, of type ``llama``, ``mistral`` or ``opt``. Our vocabulary takes the
place of its own: a token that means the same keeps its row, any other row is drawn from a normal
distribution with the mean and the covariance of the pretrained rows (Hewitt 2021, "Initializing new
word embeddings for pretrained language models"), so that a new token is as likely as an average old
one, and no two are alike.

    pretrained = read(directory)
    model = LanguageModel(replace(pretrained.config, vocab_size=len(vocabulary)), generator=g)
    rows = shared_rows(pretrained, vocabulary, tokenizer=folder)  # unitone.lm.interop.token_rows
    initialize(model, pretrained, rows=rows, generator=g)
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitone import files
from unitone.errors import CheckpointError, ConfigError
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.interop.llama import from_llama, read_llama_config
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.interop.opt_weights import from_opt, read_opt_config
from unitone.lm.interop.weight_layout import read_torch
from unitone.train import checkpoint

logger = logging.getLogger(__name__)

TABLES = ("embedding.weight", "output.weight")
"""The weights with a row for each token."""
SPECIALS = {"<bos>": "bos_token_id", "<eos>": "eos_token_id", "<pad>": "pad_token_id"}
"""Our special tokens, and the fields of config.json that say which token theirs is."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A text model in memory, under our names, in float32 on the CPU."""

    directory: Path
    config: ModelConfig | OptConfig
    """With its own vocabulary's size."""
    weights: Mapping[str, Tensor]
    specials: Mapping[str, int]
    """Its tokens for ours: ``{"<eos>": 2}``."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of the rows of the vocabulary."""

    old: int
    """Tokens that kept a pretrained row."""
    new: int
    """Tokens whose row was drawn."""


def read(directory: Path) -> Pretrained:
    """Read a Hugging Face model directory.

    Raises:
        ConfigError: there is no such directory.
        CheckpointError: it is incomplete, damaged, or of a kind that isn't built here; says what.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory; fetch the model into one")
    where = str(directory / "config.json")
    values = _read_json(directory / "config.json")
    kind = values.get("model_type")
    config: ModelConfig | OptConfig
    if kind == "opt":
        config = read_opt_config(values, where=where)
        weights = from_opt(read_weights(directory), config, where=str(directory))
    elif kind in ("llama", "mistral"):
        config = read_llama_config(values, where=where)
        weights = from_llama(read_weights(directory), config, where=str(directory))
    else:
        raise CheckpointError(
            f"{where}: model_type {kind!r} is not supported; take a llama, a mistral or an opt"
        )
    specials = {name: _first(values.get(field)) for name, field in SPECIALS.items()}
    return Pretrained(
        directory=directory,
        config=config,
        weights={name: tensor.float() for name, tensor in weights.items()},
        specials={name: value for name, value in specials.items() if isinstance(value, int)},
    )


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Return the tensors of a Hugging Face directory: safetensors or PyTorch, whole or in shards.

    Raises:
        CheckpointError: there are none, a shard is missing, or a file is damaged.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).is_file():
            return _read_file(directory / name)
        index = directory / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(_read_json(index)["weight_map"].values()))
            tensors: dict[str, Tensor] = {}
            for shard in shards:
                tensors |= _read_file(directory / shard)
            return tensors
    raise CheckpointError(
        f"{directory} holds neither model.safetensors nor pytorch_model.bin, whole or in shards"
    )


@torch.no_grad()
def initialize(
    model: LanguageModel | OptModel,
    pretrained: Pretrained,
    *,
    rows: Mapping[int, int],
    generator: torch.Generator,
) -> Taken:
    """Give the model the pretrained weights, and its vocabulary rows old and new.

    Projections of continuous inputs that the pretrained model has not, as every text model does, or
    has for vectors of another width, keep what they are.

    Args:
        model: of the pretrained shape; an output matrix of its own starts as the pretrained one,
            which may be the embedding table.
        pretrained: what `read` returned.
        rows: our token → row of theirs; of tokens not named here, the rows are drawn.
        generator: for the rows that are drawn, on the CPU.

    Raises:
        ConfigError: the model has another shape, or ties tables that the pretrained one does not.
        ValueError: ``rows`` names a token or a row that there isn't.
    """
    theirs, size = pretrained.config, model.config.vocab_size
    if model.config.tied and not theirs.tied:
        raise ConfigError(
            f"{pretrained.directory} has an output matrix of its own; set tied=False in the model"
        )
    _check_rows(rows, ours=size, theirs=theirs.vocab_size)
    weights = dict(pretrained.weights)
    if theirs.tied and not model.config.tied:
        weights["output.weight"] = weights["embedding.weight"]
    for name in TABLES:
        if name in weights:
            old = weights[name][: theirs.vocab_size]
            drawn = extend_table(old, rows, size=size, generator=generator)
            weights[name] = F.pad(drawn, (0, 0, 0, model.config.rows - size))
    if isinstance(model, OptModel):  # a shorter context needs fewer of the learned positions
        weights["positions.weight"] = weights["positions.weight"][: len(model.positions.weight)]
    weights = _with_projections(weights, checkpoint.weights(model))
    try:
        checkpoint.load_weights(model, weights, where=str(pretrained.directory))
    except CheckpointError as error:
        raise ConfigError(f"{error}: build the model from the pretrained config") from error
    taken = Taken(old=len(rows), new=size - len(rows))
    logger.info(
        "%s: %d tokens keep a pretrained row, %d rows are new",
        pretrained.directory,
        taken.old,
        taken.new,
    )
    return taken


def extend_table(
    old: Float[Tensor, "W D"], rows: Mapping[int, int], *, size: int, generator: torch.Generator
) -> Float[Tensor, "V D"]:
    """Return ``size`` rows: the old ones that ``rows`` names (new → old), the others drawn.

    Drawn rows are normal with the old rows' mean and covariance.
    """
    mean = old.double().mean(0)
    centered = old - mean.to(old.dtype)
    covariance = (centered.T @ centered).double() / max(1, len(old) - 1)
    values, vectors = torch.linalg.eigh(covariance)  # unlike Cholesky, works without full rank
    root = vectors * values.clamp(min=0).sqrt()
    new = [number for number in range(size) if number not in rows]
    noise = torch.randn(len(new), old.shape[1], generator=generator, dtype=torch.float64)
    table = old.new_empty(size, old.shape[1])
    table[new] = (mean + noise @ root.T).to(old.dtype)
    table[list(rows)] = old[list(rows.values())]
    return table


def _with_projections(
    pretrained: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    found = {name: t for name, t in pretrained.items() if not name.startswith("projections.")}
    for name, tensor in own.items():
        if name.startswith("projections."):
            theirs = pretrained.get(name)
            found[name] = tensor if theirs is None or theirs.shape != tensor.shape else theirs
    return found


def _check_rows(rows: Mapping[int, int], *, ours: int, theirs: int) -> None:
    for what, numbers, count in (("token", rows.keys(), ours), ("row", rows.values(), theirs)):
        wrong = next((number for number in numbers if not 0 <= number < count), None)
        if wrong is not None:
            raise ValueError(f"{what} {wrong} is not in 0..{count - 1}")


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return checkpoint.load_tensors(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; fetch it again") from error
    return read_torch(path)


def _first(value: Any) -> Any:
    """Of several tokens that end a text, as chat models have, the plain one comes first."""
    return value[0] if isinstance(value, list) and value else value


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; not a Hugging Face model directory?")
    values = files.read_json(path, cure="fetch it again")
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged (no JSON object); fetch it again")
    return values
