"""The work of ``lm.train``: what the family has made of the options, trained."""

import contextlib
import dataclasses
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from unitone import files, model_dir
from unitone.codecs import unit_decoder
from unitone.codecs.codec import read_config
from unitone.config import to_dict
from unitone.corpus.audio import SAMPLE_RATE
from unitone.errors import ConfigError
from unitone.lm import families, family
from unitone.lm.data.mixture import Mixture, examples
from unitone.lm.data.waveforms import open_codec
from unitone.lm.jobs.training import Training
from unitone.lm.jobs.validation import Validator
from unitone.lm.model_card import Card
from unitone.lm.options import LmConfig, MixtureConfig
from unitone.tokenizers.passport import Passport
from unitone.train import checkpoint, distributed
from unitone.train.config import MAY_DIFFER
from unitone.train.distributed import World
from unitone.train.rundir import MARKS, RunDir
from unitone.train.trainer import Trainer

logger = logging.getLogger(__name__)

MAY_CHANGE = {"valid_utterances"}
"""Settings that may change when a run goes on, beside the trainer's."""
VALIDATION_EXAMPLES = 100
"""Examples of each task whose loss is the validation's."""
DECODED_TOKENS = 4
"""Positions that are decoded in the memory of one that is trained, which keeps activations."""


def train(config: LmConfig[Any]) -> None:
    """Train; go on where an earlier run in ``config.out`` stopped.

    Raises:
        ConfigError: options or artifacts that don't go together.
        CheckpointError: an artifact is missing or damaged.
    """
    config = dataclasses.replace(config, train=config.train.resolved())
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(distributed.started(config.train.device))
        if world.first:  # before anything is written: another process may train here
            stack.enter_context(files.locked(config.out))
            files.require_own(config.out, *MARKS)
        run = RunDir(config.out)
        if not checkpoint.found(run.checkpoints):  # before the store is made anew
            run.require_unlost(save_every=config.train.save_every)
        else:
            run.check(to_dict(config), may_differ=MAY_DIFFER | MAY_CHANGE, whole=False)
        _train(config, world)


def _train(config: LmConfig[Any], world: World) -> None:
    name = families.of_size(config.config)
    made: Training = families.module(name, "training").prepare(config, world)
    tasks, words = [row.task for row in made.table], made.words
    mixture = Mixture(
        config.mixture,
        store=made.train,
        tasks=tasks,
        batching=made.batching,
        seed=config.train.seed,
    )
    parameters = sum(parameter.numel() for parameter in made.model.parameters())
    shares = zip(tasks, mixture.shares, strict=True)
    logger.info(
        "%s: %.1f M weights, %d tokens", config.config, parameters / 1e6, len(words.vocabulary)
    )
    logger.info("examples: %s", ", ".join(f"{n} {c}" for n, c in mixture.counts().items()))
    logger.info("mixture: %s", ", ".join(f"{task.name} {share:.0%}" for task, share in shares))
    decoder, card, learnt = _decoder(config, made), _card(config, made), made.learnt()

    def save_model(folder: Path) -> None:
        family.save(
            folder,
            family=name,
            model=made.model,
            vocabulary=words.vocabulary,
            table=made.table,
            tokenizer=words.tokenizer,
            decoder=decoder,
            codes=words.codes,
            null_share=made.null_share,
            learnt=learnt,
            card=card,
        )

    validator = _validator(config, made)
    best = config.train.best if validator else None
    if validator and best and best not in validator.metrics:
        raise ConfigError(f"--best {best}: there are {', '.join(validator.metrics)}")
    Trainer(
        dataclasses.replace(config.train, best=best),
        networks={"model": made.objective},
        source=mixture,
        out=config.out,
        validate=validator,
        higher_is_better=validator.higher_is_better if validator else (),
        save_model=save_model,
        settings={
            **to_dict(config),
            "vocabulary": words.vocabulary.hash,
            "store": mixture.identity,
            "weights": {task.name: task.weight for task in tasks},
            **made.settings,
        },
        may_differ=MAY_CHANGE,
    ).run()
    logger.info("next: %s", _next(config, made))


def _next(config: LmConfig[Any], made: Training) -> str:
    """Return the command that decodes with the model, for the first task that needs no more."""
    tasks = [row.task for row in made.table]
    task = next((one for one in tasks if "to" not in one.inputs), tasks[0])
    words = ["unitone", "decode", "--model", config.out, "--task", task.name]
    words += ["--to", "LANGUAGE"] if "to" in task.inputs else []
    words += ["--tokens", config.tokens]
    words += ["--split", config.valid_split[0]] if made.valid is not None else []
    words += ["--split-by", config.split_by] if config.split_by is not None else []
    words += ["--out", config.out / f"{task.name}.jsonl"]
    return shlex.join(map(str, words))


def _card(config: LmConfig[Any], made: Training) -> Card:
    return Card(
        data=tuple(f"{config.tokens}, split {split}" for split in config.split),
        hours=made.train.num_samples / SAMPLE_RATE / 3600,
        languages=tuple(made.train.labels["language"]),
        made_by=" ".join(sys.argv),
    )


def _decoder(config: LmConfig[Any], made: Training) -> Path | None:
    """Return the folder of the unit decoder or codec, which must know the units or codes."""
    if config.decoder is None:
        return None
    folder = model_dir.resolve(config.decoder)
    if read_config(folder)["codec"] != unit_decoder.NAME:
        if made.words.codes is None:
            raise ConfigError(f"--decoder {config.decoder} takes codes; no task has {{codes}}")
        open_codec(folder, made.words.codes)
        return folder
    made.words.vocabulary.require_passport(Passport.load(folder).hash, of=str(config.decoder))
    return folder


def _validator(config: LmConfig[Any], made: Training) -> Validator | None:
    if made.valid is None:
        return None
    tasks = [row.task for row in made.table]
    found = {
        number: len(examples(made.valid, made.plain, number, name=task.name)[0])
        for number, task in enumerate(tasks)
        if made.valid.complaint(made.plain.fields(number)) is None
    }
    mixture = Mixture(
        MixtureConfig(  # as many examples of each task
            max_tokens=config.mixture.max_tokens,
            mixing="temperature",
            temperature=0.0,
            window_examples=min(max(found.values(), default=1), VALIDATION_EXAMPLES)
            * max(len(found), 1),
        ),
        store=made.valid,
        tasks=tasks,
        batching=made.plain,
        seed=0,
        validating=True,
    )
    if not mixture.counts():
        return None
    return Validator(
        objective=made.objective,
        tasks={n: task for n, task in enumerate(tasks) if task.name in mixture.counts()},
        store=made.valid,
        batching=made.plain,
        fields=made.words.fields,
        predictor=made.predictor,
        context=made.model.config.context,
        batches=[mixture.load(spec) for spec in mixture.plan(0)],
        utterances=config.valid_utterances,
        max_tokens=DECODED_TOKENS * config.mixture.max_tokens,
        bf16=config.train.precision == "bf16",
    )
