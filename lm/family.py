"""Model directories of language models: written, read, and checked.

A model directory is whole or absent, and never a pickle:

    model.safetensors   weights
    config.json         "family", what other toolkits read, and under "unitone" our configuration
    vocabulary.json     every token id
    tokenizer/          passport, centroids, unit and text models: what makes the ids
    decoder/            the unit decoder or codec, where there is one
    README.md           model card

Directories without "family" are of the decoder-only family, which Transformers loads as they are;
`unitone.lm.export` writes them without our additions.
"""

import logging
import shutil
from dataclasses import dataclass
from dataclasses import fields as fields_of
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import unitone
from unitone import devices, files, model_dir
from unitone.config import from_dict, to_dict
from unitone.errors import CheckpointError, ConfigError, choices
from unitone.lm import families, model_card
from unitone.lm.data.fields import UNKNOWN, CodesOfModel, Fields, Learnt
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.model_card import Card
from unitone.lm.options import DecodingPrecision
from unitone.lm.predictor import Predictor
from unitone.lm.tasks import Task
from unitone.model_dir import CARD, CONFIG, CURE, WEIGHTS
from unitone.tokenizers.passport import Passport
from unitone.train import checkpoint

logger = logging.getLogger(__name__)

FORMAT = 2
"""Raised when a field under "unitone" changes its name or meaning; older ones are read."""
TOKENIZER = "tokenizer"
DECODER = "decoder"
TOKENIZER_FILES = ("passport.json", "kmeans.safetensors", "units.model", "text.model", "build.json")
"""What of a tokenizer directory goes into a model directory; its logs and reports don't."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What config.json has under "unitone" for every family."""

    format: int
    version: str
    """Of Unitone, when it was written."""
    codes: CodesOfModel | None = None
    """Of the codec whose codes are in the vocabulary, if any are."""
    null_share: float | None = None
    """Share of the training's examples whose condition was dropped; None where nobody knows."""
    vocabulary: str | None = None
    """Hash of the vocabulary whose tokens the weights have rows for; earlier versions had none."""
    learnt: Learnt = UNKNOWN
    """What training has seen."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model directory in memory."""

    folder: Path
    family: str
    model: Any
    """The network, an `nn.Module` with ``config.vocab_size``, ``config.context`` (positions, source
    and target together) and, where a task reads {voice}, ``config.voice``, its width."""
    vocabulary: Vocabulary
    table: Any
    """The family's rows for its tasks."""
    tokenizer: Path | None
    """Directory of the tokenizer that the ids belong to, if it was saved."""
    passport: Passport | None
    """Of that tokenizer."""
    decoder: Path | None
    """Directory of the unit decoder or codec, if there is one."""
    codes: CodesOfModel | None = None
    """Of the codec whose codes it reads or generates, if it does."""
    null_share: float | None = None
    """Share of the training's examples whose condition was dropped, for classifier-free guidance;
    None: not known."""
    learnt: Learnt = UNKNOWN
    """What training has seen."""
    int8: bool = False
    """Whether it is to generate with matrices in int8."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it was trained for."""
        return tuple(row.task for row in self.table)

    @property
    def device(self) -> str:
        """Where its weights are."""
        return str(next(self.model.parameters()).device)

    @cached_property
    def fields(self) -> Fields:
        """Rows to token ids and back.

        Raises:
            ConfigError: the directory has no tokenizer.
        """
        if self.tokenizer is None:
            raise ConfigError(
                f"{self.folder} has no tokenizer/, so text and units can't be read: copy the whole "
                "directory, or the tokenizer's own into it"
            )
        return Fields.open(self.tokenizer, self.vocabulary, learnt=self.learnt)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Speakers that it has tokens for and, where that is known, has heard in training."""
        heard, labels = self.learnt.speakers, self.vocabulary.block("speaker").labels
        return labels if heard is None else tuple(name for name in labels if name in {*heard})

    def require(self, kind: str, label: str) -> None:
        """Refuse a language, gender or speaker that the model doesn't know.

        Raises:
            ConfigError: naming those that there are.
        """
        known = self.speakers if kind == "speaker" else self.vocabulary.block(kind).labels
        if label not in known:
            raise ConfigError(f"no {kind} {label!r}; the model has {choices(label, known)}")

    def predictor(self, task: str, **options: Any) -> Predictor[Any]:
        """Return what does ``task``; ``options`` as of the family's ``open_predictor``."""
        opened = families.module(self.family, "predictor").open_predictor
        made: Predictor[Any] = opened(self, task, **options)
        return made


def save(
    folder: Path,
    *,
    family: str = families.DEFAULT,
    model: nn.Module,
    vocabulary: Vocabulary,
    table: Any,
    tokenizer: Path | None = None,
    decoder: Path | None = None,
    codes: CodesOfModel | None = None,
    null_share: float | None = None,
    learnt: Learnt = UNKNOWN,
    card: Card | None = None,
) -> None:
    """Write a model directory; one of this name stays as it is until the new one is complete.

    Args:
        folder: where.
        family: of the model.
        model: with whole weights, not sharded, in the precision they are to be stored in.
        vocabulary: of the model.
        table: the family's rows for the tasks it was trained for, stored whole.
        tokenizer: directory that made the text and unit ids; its passport is the vocabulary's.
        decoder: directory of a unit decoder or codec.
        codes: what the vocabulary's codes are, where it has any.
        null_share: share of the training's examples whose condition was dropped.
        learnt: what training has seen.
        card: facts for the README.

    Raises:
        ConfigError: the parts don't belong together.
        OSError: no room.
    """
    weights = families.module(family, "weights")
    context = _check_parts(model, vocabulary, tokenizer)
    tensors = weights.to_tensors(model)
    stored = _Stored(
        format=FORMAT, version=unitone.__version__, codes=codes, null_share=null_share,
        vocabulary=vocabulary.hash, learnt=learnt,
    )  # fmt: skip
    ours = {**to_dict(stored), **weights.to_json(model, table)}
    described = weights.describe(model, vocabulary, dtype=next(iter(tensors.values())).dtype)
    with checkpoint.replacing_folder(folder) as temporary:
        checkpoint.save_tensors(temporary / WEIGHTS, tensors)
        files.write_json(temporary / CONFIG, {"family": family, **described, "unitone": ours})
        vocabulary.save(temporary)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, temporary / TOKENIZER)
        if decoder is not None:
            shutil.copytree(decoder, temporary / DECODER, copy_function=shutil.copyfile)
        text = model_card.write(
            card or Card(),
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            context=context,
            vocabulary=vocabulary,
            tasks=[row.task for row in table],
            layouts=weights.layouts(table),
        )
        files.write_text(temporary / CARD, text)


def _check_parts(model: Any, vocabulary: Vocabulary, tokenizer: Path | None) -> int:
    """Return the model's context; errors as `save`."""
    config = model.config
    if config.vocab_size != len(vocabulary):
        raise ConfigError(
            f"the model has {config.vocab_size} tokens, the vocabulary {len(vocabulary)}"
        )
    if tokenizer is not None:
        vocabulary.require_passport(Passport.load(tokenizer).hash, of=str(tokenizer))
    context: int = config.context
    return context


def load(
    folder: Path | str, *, device: str = "auto", precision: DecodingPrecision = "fp32"
) -> LoadedModel:
    """Read a model directory, or the best one of a run, and check that its parts belong together.

    Args:
        folder: what `save` wrote.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: of the weights in memory, or int8 for what generates, on a CPU.

    Raises:
        ConfigError: there is no such directory or device, or the tokenizer is another one's.
        CheckpointError: a file is missing, damaged, of another version, or doesn't fit the rest.
    """
    folder = model_dir.resolve(folder)
    config = model_dir.read_config(folder, option="--model")
    vocabulary = Vocabulary.load(folder)
    name = families.of_config(config)
    stored, values = _stored(config, where=str(folder / CONFIG))
    weights = families.module(name, "weights")
    try:
        with model_dir.reading(folder / CONFIG):
            model, table = weights.from_json(values, where=f"{folder / CONFIG}: unitone")
    except ConfigError as error:
        raise CheckpointError(f"{error}; use the version of Unitone that wrote it") from error
    _check(folder, model, vocabulary, stored)
    tokenizer = folder / TOKENIZER if (folder / TOKENIZER).is_dir() else None
    passport = None if tokenizer is None else Passport.load(tokenizer)
    if passport is not None:
        vocabulary.require_passport(passport.hash, of=str(tokenizer))
    elif vocabulary.passport is not None:
        logger.warning("%s: no %s/, so text and units can't be read", folder, TOKENIZER)
    if stored.vocabulary not in (None, vocabulary.hash):
        raise CheckpointError(
            f"{folder}: vocabulary.json is not the one that the weights were saved with, so tokens "
            f"would mean other things; {CURE}"
        )
    place = devices.resolve(device)
    try:
        tensors = checkpoint.load_finite(folder / WEIGHTS)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {CURE}") from error
    devices.materialize(model, device=place, dtype=DTYPES[precision])
    weights.load_tensors(model, tensors, where=str(folder / WEIGHTS))
    return LoadedModel(
        folder=folder,
        family=name,
        model=model.eval(),
        vocabulary=vocabulary,
        table=table,
        tokenizer=tokenizer,
        passport=passport,
        decoder=folder / DECODER if (folder / DECODER).is_dir() else None,
        codes=stored.codes,
        null_share=stored.null_share,
        learnt=stored.learnt,
        int8=precision == "int8",
    )


def learnt_of(folder: Path) -> Learnt:
    """Return what the training of a model directory has seen."""
    config = model_dir.read_config(model_dir.resolve(folder))
    return _stored(config, where=str(folder / CONFIG))[0].learnt


def _stored(config: dict[str, Any], *, where: str) -> tuple[_Stored, dict[str, Any]]:
    """Return what every family has under "unitone", and the rest of it."""
    values = config.get("unitone")
    if not isinstance(values, dict):
        raise CheckpointError(
            f'{where} has no "unitone" part: not written by Unitone; a plain Hugging Face model is '
            "where training starts (unitone.lm.interop), it can't be used as it is"
        )
    form = values.get("format", FORMAT)
    if form not in (1, FORMAT):
        raise CheckpointError(f"{where} has format {form}; this version reads 1 to {FORMAT}")
    shared = {one.name: values[one.name] for one in fields_of(_Stored) if one.name in values}
    try:
        with model_dir.reading(Path(where)):
            stored = from_dict(_Stored, shared, where=f"{where}: unitone")
    except ConfigError as error:
        raise CheckpointError(f"{error}; use the version of Unitone that wrote it") from error
    return stored, {name: value for name, value in values.items() if name not in shared}


def _check(folder: Path, model: Any, vocabulary: Vocabulary, stored: _Stored) -> None:
    if model.config.vocab_size != len(vocabulary):
        raise CheckpointError(
            f"{folder}: {CONFIG} is of a model with {model.config.vocab_size} tokens, "
            f"vocabulary.json has {len(vocabulary)}; they are of two models: copy the whole "
            "directory again"
        )
    if len(vocabulary.codes) != (stored.codes.levels if stored.codes else 0):
        raise CheckpointError(
            f"{folder}: vocabulary.json has {len(vocabulary.codes)} levels of codes, {CONFIG} says "
            f"{stored.codes.levels if stored.codes else 'nothing of codes'}: {CURE}"
        )


def copy_tokenizer(tokenizer: Path, folder: Path) -> None:
    """Copy what `Tokenizer.load` and the text and unit models need."""
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
