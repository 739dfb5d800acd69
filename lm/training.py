"""What the trainings of all families share: options, data, and what a family makes of them.

A family's ``training.py`` has ``Options``, its own options of ``lm.train``, and
``prepare(config, world) -> Training``, which calls `open_words` and `open_stores` here.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from torch import nn

from unitone.errors import ConfigError
from unitone.lm.data import store
from unitone.lm.data.fields import NOTHING, CodesOfModel, Fields, Learnt, Pattern
from unitone.lm.data.mixture import Batching, MixtureConfig
from unitone.lm.data.store import TokenStore
from unitone.lm.data.vocabulary import SPECIALS, Vocabulary
from unitone.lm.predictor import Predictor
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import FOLDER
from unitone.train import checkpoint
from unitone.train.config import TrainConfig
from unitone.train.distributed import World

logger = logging.getLogger(__name__)

Options = TypeVar("Options")


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

TRAINING = TrainConfig(
    steps=20_000,
    lr=1e-3,
    optimizer="muon",
    weight_decay=0.05,
    warmup_steps=200,
    decay_share=0.3,
    best="loss",
    validate_every=1000,
)


@dataclass(frozen=True, kw_only=True)
class LmConfig(Generic[Options]):
    tokens: Path
    """Token shards, of ``python -m tokenizers.encode``."""
    out: Path
    """Folder of the run."""
    config: str = "lm-mini"
    """Size of the model, whose name says the family; they are listed above."""
    tasks: tuple[str, ...] = ()
    """Tasks of the table; default: all."""
    tokenizer: Path | None = None
    """Tokenizer directory; default: the copy inside the shards."""
    split: tuple[str, ...] = ("train",)
    """Splits that are learnt."""
    valid_split: tuple[str, ...] = ("dev",)
    """Splits that validation looks at."""
    split_by: str | None = None
    """Where the corpus has no splits, makes train, dev and test (90, 5 and 5 in a hundred) by the
    hash of this: utterance, speaker (nobody is in two of them), text or language."""
    valid_utterances: int = 32
    """Utterances that validation decodes for each task; 0 looks at the loss only."""
    context: int = 1024
    """Longest sequence, in positions; longer examples are left out and counted."""
    decoder: Path | None = None
    """Unit decoder of ``python -m codecs.train``, or the codec of the codes, that the model
    directories carry a copy of, so that they can speak."""
    features: Path | None = None
    """Folder of ``python -m tokenizers.features``, for tasks that read {features}."""
    speaker_embeddings: Path | None = None
    """Safetensors file with a vector for every utterance id or speaker, for tasks that read
    {voice}."""
    options: Options
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    train: TrainConfig = TRAINING


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
    training = _store(config, words, "train", config.split)
    valid = None
    there = words.shards.distinct("split") if config.split_by is None else {"train", "dev", "test"}
    if there & {*config.valid_split}:
        valid = _store(config, words, "valid", config.valid_split)
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
