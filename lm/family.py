"""A model directory: all that is needed to use a language model, whole or absent, never a pickle.

    model.safetensors   weights under Llama's (or OPT's) names
    config.json         what Transformers reads, and under "unitone" our configuration and tasks
    vocabulary.json     every token id
    tokenizer/          passport, centroids, unit and text models: what makes the ids
    decoder/            the unit decoder or codec, where there is one
    README.md           model card

Transformers loads the directory as it is; `unitone.lm.export` writes one without our additions.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import unitone
from unitone import devices, files
from unitone.config import from_dict, to_dict
from unitone.errors import CheckpointError, ConfigError
from unitone.lm import model_card
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.codes import CodesOfModel
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.interop.llama import from_llama, llama_config, to_llama
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.interop.opt_weights import from_opt, opt_config, to_opt
from unitone.lm.model_card import Card
from unitone.lm.tasks import Task
from unitone.tokenizers.passport import Passport
from unitone.train import checkpoint

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised when a field under "unitone" changes its meaning."""
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
TOKENIZER = "tokenizer"
DECODER = "decoder"
TOKENIZER_FILES = ("passport.json", "kmeans.safetensors", "units.model", "text.model", "build.json")
"""What of a tokenizer directory goes into a model directory; its logs and reports don't."""

Model = LanguageModel | OptModel
Precision = Literal["fp32", "bf16"]
CURE = "copy the directory again, or save it again from a checkpoint of the run"

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What config.json says under "unitone"."""

    format: int
    version: str
    """Of Unitone, when it was written."""
    tasks: tuple[Task, ...]
    llama: ModelConfig | None = None
    """The model's configuration, if it is a `LanguageModel`."""
    opt: OptConfig | None = None
    """The model's configuration, if it is an `OptModel`."""
    codes: CodesOfModel | None = None
    """Of the codec whose codes are in the vocabulary, if any are."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model directory in memory."""

    folder: Path
    model: Model
    vocabulary: Vocabulary
    tasks: tuple[Task, ...]
    tokenizer: Path | None
    """Directory of the tokenizer that the ids belong to, if it was saved."""
    passport: Passport | None
    """Of that tokenizer."""
    decoder: Path | None
    """Directory of the unit decoder or codec, if there is one."""
    codes: CodesOfModel | None = None
    """Of the codec whose codes it reads or says, if it does."""


def save(
    folder: Path,
    *,
    model: Model,
    vocabulary: Vocabulary,
    tasks: Sequence[Task],
    tokenizer: Path | None = None,
    decoder: Path | None = None,
    codes: CodesOfModel | None = None,
    card: Card | None = None,
) -> None:
    """Write a model directory; one of this name stays as it is until the new one is complete.

    Args:
        folder: where.
        model: with whole weights, not sharded, in the precision they are to be stored in.
        vocabulary: of the model.
        tasks: the rows of the task table it was trained for, stored whole.
        tokenizer: directory that made the text and unit ids; its passport is the vocabulary's.
        decoder: directory of a unit decoder or codec.
        codes: what the vocabulary's codes are, where it has any.
        card: facts for the README.

    Raises:
        ConfigError: the parts don't belong together.
        OSError: no room.
    """
    if model.config.vocab_size != len(vocabulary):
        raise ConfigError(
            f"the model has {model.config.vocab_size} tokens, the vocabulary {len(vocabulary)}"
        )
    if tokenizer is not None:
        vocabulary.require_passport(Passport.load(tokenizer).hash, of=str(tokenizer))
    tensors = to_tensors(model)
    with checkpoint.replacing_folder(folder) as temporary:
        checkpoint.save_tensors(temporary / WEIGHTS, tensors)
        described = describe(model, vocabulary, dtype=next(iter(tensors.values())).dtype)
        described["unitone"] = to_dict(_stored(model, tasks, codes))
        files.write_json(temporary / CONFIG, described)
        vocabulary.save(temporary)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, temporary / TOKENIZER)
        if decoder is not None:
            shutil.copytree(decoder, temporary / DECODER)
        text = model_card.write(
            card or Card(),
            num_parameters=model.num_parameters,
            context=model.config.context,
            vocabulary=vocabulary,
            tasks=tasks,
        )
        files.write_text(temporary / CARD, text)


def load(folder: Path, *, device: str = "auto", precision: Precision = "fp32") -> Loaded:
    """Read a model directory and check that its parts belong together.

    Args:
        folder: what `save` wrote.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: of the weights in memory.

    Raises:
        ConfigError: there is no such directory or device, or the tokenizer is another one's.
        CheckpointError: a file is missing, damaged, of another version, or doesn't fit the rest.
    """
    if not folder.is_dir():
        checkpoint.restore(folder)  # a process was killed while it replaced the directory
    if not folder.is_dir():
        raise ConfigError(f"--model {folder}: no such directory")
    vocabulary = Vocabulary.load(folder)
    stored = _read_config(folder / CONFIG)
    config = stored.llama or stored.opt
    assert config is not None
    if config.vocab_size != len(vocabulary):
        raise CheckpointError(
            f"{folder}: {CONFIG} is of a model with {config.vocab_size} tokens, vocabulary.json "
            f"has {len(vocabulary)}; they are of two models: copy the whole directory again"
        )
    if len(vocabulary.codes) != (stored.codes.levels if stored.codes else 0):
        raise CheckpointError(
            f"{folder}: vocabulary.json has {len(vocabulary.codes)} levels of codes, {CONFIG} says "
            f"{stored.codes.levels if stored.codes else 'nothing of codes'}: {CURE}"
        )
    tokenizer = folder / TOKENIZER if (folder / TOKENIZER).is_dir() else None
    passport = None if tokenizer is None else Passport.load(tokenizer)
    if passport is not None:
        vocabulary.require_passport(passport.hash, of=str(tokenizer))
    elif vocabulary.passport is not None:
        logger.warning("%s: no %s/, so text and units can't be read", folder, TOKENIZER)
    place = devices.resolve(device)
    return Loaded(
        folder=folder,
        model=_read_model(folder / WEIGHTS, config, place, DTYPES[precision]),
        vocabulary=vocabulary,
        tasks=stored.tasks,
        tokenizer=tokenizer,
        passport=passport,
        decoder=folder / DECODER if (folder / DECODER).is_dir() else None,
        codes=stored.codes,
    )


def to_tensors(model: Model) -> dict[str, Tensor]:
    """Return the weights as they are stored: on the CPU, under Llama's or OPT's names."""
    given = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if isinstance(model, OptModel):
        return to_opt(given, model.config)
    return to_llama(given, model.config)


def describe(model: Model, vocabulary: Vocabulary, *, dtype: torch.dtype) -> dict[str, Any]:
    """Return the config that Transformers reads; ``dtype`` is that of the weights on disk."""
    name = str(dtype).removeprefix("torch.")
    if isinstance(model, OptModel):
        return opt_config(model.config, vocabulary, dtype=name)
    return llama_config(model.config, vocabulary, dtype=name)


def copy_tokenizer(tokenizer: Path, folder: Path) -> None:
    """Copy what `Tokenizer.load` and the text and unit models need."""
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)


def _stored(model: Model, tasks: Sequence[Task], codes: CodesOfModel | None) -> Stored:
    return Stored(
        format=FORMAT,
        version=unitone.__version__,
        tasks=tuple(tasks),
        llama=model.config if isinstance(model, LanguageModel) else None,
        opt=model.config if isinstance(model, OptModel) else None,
        codes=codes,
    )


def _read_config(path: Path) -> Stored:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing; not a model directory?") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); {CURE}") from error
    values = described.get("unitone") if isinstance(described, dict) else None
    if values is None:
        raise CheckpointError(
            f'{path} has no "unitone" part: not written by Unitone; a plain Hugging Face model is '
            "where training starts (unitone.lm.interop.pretrained), it can't be used as it is"
        )
    if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
        raise CheckpointError(f"{path} has format {values['format']}; this version reads {FORMAT}")
    try:
        stored = from_dict(Stored, values, where=f"{path}: unitone")
    except ConfigError as error:
        raise CheckpointError(f"{error}; use the version of Unitone that wrote it") from error
    if (stored.llama is None) == (stored.opt is None):
        raise CheckpointError(f"{path}: unitone: exactly one of llama and opt must be given")
    return stored


def _read_model(
    path: Path, config: ModelConfig | OptConfig, device: torch.device, dtype: torch.dtype
) -> Model:
    try:
        tensors = checkpoint.load_tensors(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {CURE}") from error
    with torch.device("meta"):  # no time and no global randomness spent on a first value
        model: Model = (
            LanguageModel(config) if isinstance(config, ModelConfig) else OptModel(config)
        )
    if isinstance(config, ModelConfig):
        weights = from_llama(tensors, config, where=str(path))
    else:
        weights = from_opt(tensors, config, where=str(path))
    model.to(dtype).to_empty(device=device)
    checkpoint.load_weights(model, weights, where=str(path))
    return model.eval()
