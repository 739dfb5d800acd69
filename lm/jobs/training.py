"""What the trainings of all families share: options, data, and what a family makes of them.

A family's ``training.py`` has ``Options``, its own options of ``lm.train``, and
``prepare(config, world) -> Training``, which calls `open_words` and `open_stores` here.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import nn

from unitone.errors import ConfigError
from unitone.lm.data import store
from unitone.lm.data.fields import NOTHING, CodesOfModel, Fields, Learnt
from unitone.lm.data.mixture import Batching
from unitone.lm.data.store import TokenStore
from unitone.lm.data.vocabulary import SPECIALS, Vocabulary
from unitone.lm.options import LmConfig, Pattern
from unitone.lm.predictor import Predictor
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import FOLDER
from unitone.train import checkpoint
from unitone.train.distributed import World

logger = logging.getLogger(__name__)


@runtime_checkable
class HasFields(Protocol):
    """A family's row for a task."""

    @property
    def name(self) -> str:
        """Of the task."""
        ...

    @property
    def fields(self) -> Sequence[str]:
        """What an example is made of."""
        ...


Row = TypeVar("Row", bound=HasFields)


@dataclass(frozen=True, kw_only=True)
class Words:
    """The vocabulary of a training, and what makes its ids."""

    shards: TokenShards
    tokenizer: Path
    fields: Fields
    codes: CodesOfModel | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """Every token id."""
        return self.fields.vocabulary

    @property
    def pattern(self) -> Pattern:
        """How codes lie in a sequence, where there are any."""
        return self.codes.pattern if self.codes else "delay"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a family makes of a configuration: what `unitone.lm.train` trains."""

    words: Words
    model: Any
    """What a model directory holds, see `unitone.lm.family.LoadedModel`."""
    objective: nn.Module
    """The trainable module."""
    table: Any
    """The family's rows for the tasks, each with its ``task``."""
    train: TokenStore
    valid: TokenStore | None
    batching: Batching
    plain: Batching
    """For validation: without augmentation, one example a row."""
    predictor: Callable[[str], Predictor[Any]]
    """Of a task, with the model as it is now."""
    null_share: float | None = None
    """Share of examples whose condition is dropped, where the family does that."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else must be the same when a run goes on."""
    before: Learnt = NOTHING
    """What the model had learnt when this training began."""

    def learnt(self) -> Learnt:
        """Return what is learnt at the end."""
        block, text = self.words.vocabulary.block("text"), self.words.fields.text
        ids: set[int] = set()
        characters: set[str] = set()
        for tokens in self.train.tokens_of_text():
            found = block.decode(tokens).tolist()
            ids.update(found)
            characters.update(text.decode(found))
        return Learnt.of(ids, self.train.labels["speaker"], characters).after(self.before)


def open_words(
    config: LmConfig[Any],
    *,
    tokens: Iterable[str],
    fields: Collection[str],
    shards: TokenShards | None = None,
    codes: CodesOfModel | None = None,
) -> Words:
    """Lay out the vocabulary that the tasks and the shards call for.

    Args:
        config: of the training.
        tokens: special tokens that the model needs, ``<sep>``, ``<task:asr>``.
        fields: of the tasks; with ``speaker`` among them, speakers have tokens.
        shards: where they are open already.
        codes: of a codec, where tasks read or generate them.

    Raises:
        ConfigError: the tokenizer isn't that of the shards.
        CheckpointError: an artifact is missing or damaged.
    """
    shards = TokenShards(config.tokens) if shards is None else shards
    tokenizer = config.tokenizer or config.tokens / FOLDER
    passport = Passport.load(tokenizer)
    if passport.hash != shards.passport.hash:
        raise ConfigError(
            "--tokenizer: its passport is not that of the shards; give the directory they were "
            "encoded with"
        )
    tokens = {*tokens}
    named = sorted(token[1:-1] for token in tokens if ":" not in token)
    subwords = passport.unit_pieces
    vocabulary = Vocabulary.build(
        text=passport.text.size,
        units=subwords.size if subwords else passport.kmeans.k,
        codes=(codes.codec.codebook_size,) * codes.levels if codes else (),
        tasks=sorted(t[len("<task:") : -1] for t in tokens if t.startswith("<task:")),
        languages=sorted(shards.distinct("language") | shards.distinct("translation")),
        genders=sorted(shards.distinct("gender")),
        speakers=sorted(shards.distinct("speaker")) if "speaker" in fields else (),
        special=(*SPECIALS, *(name for name in named if name not in SPECIALS)),
        passport=passport.hash,
    )
    fields_of = Fields.open(tokenizer, vocabulary)
    return Words(shards=shards, tokenizer=tokenizer, fields=fields_of, codes=codes)


def learnable(table: Sequence[Row], data: TokenStore, *, named: Collection[str]) -> list[Row]:
    """Return the rows that the training data has examples of; the others are named in the log.

    Raises:
        ConfigError: one of ``named``, which the user asked for, has none; or what it is missing
            comes by an option; or no row has any.
    """
    kept: list[Row] = []
    for row in table:
        complaint = data.complaint(row.fields)
        if complaint is None:
            kept.append(row)
        elif row.name in named or not data.optional(row.fields):
            data.examples(row.fields, task=row.name)  # refuses
        else:
            logger.warning("task %s is left out: %s", row.name, complaint)
    if not kept:
        raise ConfigError("the corpus has what no task of the table needs; the log says what")
    return kept


def open_stores(
    config: LmConfig[Any], words: Words, world: World
) -> tuple[TokenStore, TokenStore | None]:
    """Return the stores of training and validation; what is written, the first process writes.

    Raises:
        CorpusError, ConfigError, CheckpointError: as `unitone.lm.data.store.build`.
    """
    if not world.first:
        world.gather(None)  # until the first has written the stores
    there = words.shards.distinct("split") if config.split_by is None else {"train", "dev", "test"}
    if there & {*config.split} and (absent := {*config.split} - there):
        raise ConfigError(f"--split: no utterance has {', '.join(sorted(absent))}")
    training = _store(config, words, "train", config.split)
    valid = None
    if there & {*config.valid_split}:
        valid = _store(config, words, "valid", config.valid_split)
        if absent := {*config.valid_split} - there:
            logger.warning("no utterance of split %s: not in validation", ", ".join(sorted(absent)))
    if world.first:
        world.gather(None)
    if valid is None:
        logger.warning("no utterance of split %s: no validation", ", ".join(config.valid_split))
    return training, valid


def _store(config: LmConfig[Any], words: Words, name: str, split: tuple[str, ...]) -> TokenStore:
    return store.build(
        config.out / "store" / name,
        shards=words.shards,
        fields=words.fields,
        split=split,
        features=config.features,
        embeddings=config.speaker_embeddings,
        replace=not checkpoint.found(config.out / "checkpoints"),
        validating=name == "valid",
        split_by=config.split_by,
    )
