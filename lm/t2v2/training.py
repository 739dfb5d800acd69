"""Training T2V2: its options of ``lm.train``, and what is made of them."""

import dataclasses

from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm import tasks
from unitone.lm.jobs.training import Training, learnable, open_stores, open_words
from unitone.lm.t2v2.batch import T2V2Batching
from unitone.lm.t2v2.model import T2V2, size
from unitone.lm.t2v2.objective import Joint
from unitone.lm.t2v2.options import T2V2TrainConfig
from unitone.lm.t2v2.predictor import T2V2Predictor
from unitone.lm.t2v2.table import TASKS, T2V2Task
from unitone.train.distributed import World

FOREIGN = ("st", "mt", "lid")
"""Tasks that need tokens of languages."""
DROP = 0.1
"""Share of examples whose language, or speaker, isn't told, so that neither needs to be given."""


def prepare(config: T2V2TrainConfig, world: World) -> Training:
    """Open the data and build the model; what is written, the first process writes.

    Raises:
        ConfigError: options or artifacts that don't go together.
        CheckpointError: an artifact is missing or damaged.
    """
    options, table = config.options, table_of(config)
    _refuse(config)
    read = {name for row in table for name in row.fields}
    words = open_words(
        config, tokens=(), fields=read | ({"speaker"} if options.conditions else set())
    )
    training, valid = open_stores(config, words, world)
    table = tuple(learnable(table, training, named={*config.tasks, *config.mixture.weights}))
    vocabulary = words.vocabulary
    blocks = {name: vocabulary.block(name).size for name in ("language", "speaker", "gender")}
    model = T2V2(
        size(
            config.config,
            dropout=options.dropout,
            vocab_size=len(vocabulary),
            text=vocabulary.block("text").size,
            units=vocabulary.block("unit").size,
            languages=blocks["language"] if options.conditions else 0,
            speakers=blocks["speaker"] if options.conditions else 0,
            genders=blocks["gender"] if any(row.name == "gid" for row in table) else 0,
            upsample=options.upsample,
            context=config.context,
            correction=options.pieces.correction,
            speech=options.pieces.speech,
        ),
        generator=seeding.torch_generator(config.train.seed, "weights"),
    )
    batching = T2V2Batching(
        vocabulary=vocabulary,
        tasks=table,
        upsample=options.upsample,
        spread=model.config.spread,
        longest=min(config.context, config.mixture.max_tokens),
        drop=DROP,
    )
    passport = words.shards.passport

    def predictor(task: str) -> T2V2Predictor:
        (row,) = tasks.select(table, [task])
        return T2V2Predictor(model, row, fields=words.fields, passport=passport)

    return Training(
        words=words,
        model=model,
        objective=Joint(model, pieces=options.pieces),
        table=table,
        train=training,
        valid=valid,
        batching=batching,
        plain=dataclasses.replace(batching, drop=0.0),
        predictor=predictor,
    )


def table_of(config: T2V2TrainConfig) -> tuple[T2V2Task, ...]:
    """Return the rows that are trained."""
    rows = tasks.select(TASKS, config.tasks) if config.tasks else TASKS
    weights = config.mixture.weights
    tasks.select(rows, weights)  # refuses names that aren't there
    missing: dict[str, str] = {}
    if not config.options.conditions:
        missing |= dict.fromkeys(FOREIGN, "needs languages: leave --no-conditions out")
    if not config.options.pieces.synthesis:
        missing["tts"] = "isn't learnt: leave --no-synthesis out"
    refused = [name for name in config.tasks if name in missing]
    if refused:
        raise ConfigError(f"--tasks {refused[0]} {missing[refused[0]]}")
    rows = tuple(row for row in rows if row.name not in missing)
    return tuple(
        dataclasses.replace(
            row, task=dataclasses.replace(row.task, weight=weights.get(row.name, row.task.weight))
        )
        for row in rows
    )


def _refuse(config: T2V2TrainConfig) -> None:
    for name in ("features", "speaker_embeddings"):
        if getattr(config, name) is not None:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option}: T2V2 reads units and text only; leave it out")
