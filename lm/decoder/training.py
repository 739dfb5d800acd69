"""Training the decoder-only model: its options of ``lm.train``, and what is made of them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm import family, tasks
from unitone.lm.data.fields import NOTHING, CodesOfModel, Learnt
from unitone.lm.data.store import TokenStore
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder import template
from unitone.lm.decoder.batch import DecoderBatching
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import LanguageModel, size
from unitone.lm.decoder.objective import NextToken, SpeechCtc, recognizes
from unitone.lm.decoder.options import BatchConfig, DecoderConfig, Options
from unitone.lm.decoder.predictor import DecoderPredictor, require_null
from unitone.lm.decoder.template import DecoderTask
from unitone.lm.interop import finetune, pretrained
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.interop.pretrained import Pretrained
from unitone.lm.interop.token_rows import shared_rows
from unitone.lm.jobs.training import Training, Words, learnable, open_stores, open_words
from unitone.tokenizers.shards import TokenShards
from unitone.train.distributed import World


def table_of(config: DecoderConfig) -> tuple[DecoderTask, ...]:
    """Return the rows that are trained."""
    table = template.TABLES[config.options.table]
    if config.options.rows is not None:
        table = template.extended(table, template.read(config.options.rows))
    rows = tasks.select(table, config.tasks) if config.tasks else table
    weights = config.mixture.weights
    tasks.select(rows, weights)  # refuses names that aren't there
    for option, field_of in (("speaker_embeddings", "voice"), ("features", "features")):
        if getattr(config, option) is not None and not any(field_of in row.fields for row in rows):
            name = option.replace("_", "-")  # the model would have a projection that nothing trains
            raise ConfigError(
                f"--{name}: no task reads {{{field_of}}}; add a row that does, or leave it out"
            )
    return tuple(
        dataclasses.replace(
            row,
            weight=weights.get(row.name, row.weight),
            prompt_tokens=config.options.prompt_tokens or row.prompt_tokens,
        )
        for row in rows
    )


def prepare(config: DecoderConfig, world: World) -> Training:
    """Open the data and build the model; what is written, the first process writes.

    Raises:
        ConfigError: options or artifacts that don't go together.
        CheckpointError: an artifact is missing or damaged.
    """
    options, table = config.options, table_of(config)
    shards = TokenShards(config.tokens)
    words = open_words(
        config,
        tokens=(part.name for row in table for part in row.parts if part.kind == "token"),
        fields={name for row in table for name in row.fields},
        shards=shards,
        codes=_codes(config, shards, table),
    )
    formatter = PromptFormatter(
        words.fields, pattern=words.codes.pattern if words.codes else "delay"
    )
    training, valid = open_stores(config, words, world)
    table = tuple(learnable(table, training, named=_named(config)))
    for row in table:
        formatter.check(row)
        require_null(row.decoding, options.batch.null_share)
    model = _model(config, words, data=training)
    batching = DecoderBatching(
        formatter=formatter,
        tasks=table,
        context=model.config.context,
        max_tokens=config.mixture.max_tokens,
        config=options.batch,
    )

    def predictor(task: str) -> DecoderPredictor:
        (row,) = tasks.select(table, [task])
        return DecoderPredictor(model, row, table=table, formatter=formatter)

    return Training(
        words=words,
        model=model,
        objective=NextToken(
            model,
            vocabulary=words.vocabulary,
            tasks=[row.name for row in table],
            label_smoothing=options.label_smoothing,
            ctc=_ctc(options, model, words.vocabulary, table),
            ctc_weight=options.ctc,
        ),
        table=table,
        train=training,
        valid=valid,
        batching=batching,
        plain=dataclasses.replace(batching, config=BatchConfig()),
        predictor=predictor,
        null_share=options.batch.null_share,
        settings={"templates": {row.name: row.template for row in table}} if options.rows else {},
        before=_before(options.init),
    )


def _named(config: DecoderConfig) -> set[str]:
    """Return the tasks that the user asks for by name."""
    own = template.read(config.options.rows) if config.options.rows else ()
    return {*config.tasks, *config.mixture.weights, *(row.name for row in own)}


def _before(init: Path | None) -> Learnt:
    """Return what the model knows to begin with; a text model knows text, no telling which."""
    if init is None:
        return NOTHING
    return family.learnt_of(init) if finetune.is_ours(init) else Learnt(speakers=())


def _codes(
    config: DecoderConfig, shards: TokenShards, table: Sequence[DecoderTask]
) -> CodesOfModel | None:
    """Return what the codes of the model will be; None where no task has any."""
    if not any("codes" in row.fields for row in table):
        for option, value in (
            ("codes-pattern", config.options.codes_pattern),
            ("code-levels", config.options.code_levels),
        ):
            if value is not None:
                raise ConfigError(f"--{option}: no task has {{codes}}; try --table codes")
        return None
    found = shards.require_codes()
    levels = found.levels if config.options.code_levels is None else config.options.code_levels
    if not 1 <= levels <= found.levels:
        raise ConfigError(
            f"--code-levels {levels}: the shards in {config.tokens} have 1 to {found.levels}; "
            "`python -m unitone.codecs.encode --levels` makes more"
        )
    return CodesOfModel(
        codec=found.codec, levels=levels, pattern=config.options.codes_pattern or "delay"
    )


def _model(config: DecoderConfig, words: Words, *, data: TokenStore) -> LanguageModel | OptModel:
    vocabulary, init = words.vocabulary, config.options.init
    if init is not None:
        if finetune.is_ours(init):
            read, rows = finetune.read(init, vocabulary, codes=words.codes)
        else:
            read = pretrained.read(init)
            rows = shared_rows(read, vocabulary, tokenizer=words.tokenizer)
        return _from_pretrained(config, vocabulary, read, rows=rows, data=data)
    shape = size(
        config.config, vocab_size=len(vocabulary), context=config.context, features=data.width
    )
    transformer = dataclasses.replace(
        shape.transformer,
        dropout=config.options.dropout,
        checkpoint_activations=config.options.checkpoint_activations,
    )
    shape = dataclasses.replace(shape, transformer=transformer, voice=data.voice_width)
    generator = seeding.torch_generator(config.train.seed, "weights")
    return LanguageModel(shape, generator=generator)


def _from_pretrained(
    config: DecoderConfig,
    vocabulary: Vocabulary,
    read: Pretrained,
    *,
    rows: Mapping[int, int],
    data: TokenStore,
) -> LanguageModel | OptModel:
    generator = seeding.torch_generator(config.train.seed, "rows")
    shape = dataclasses.replace(
        read.config,
        vocab_size=len(vocabulary),
        context=min(config.context, read.config.context),
        transformer=dataclasses.replace(
            read.config.transformer,
            dropout=config.options.dropout,
            checkpoint_activations=config.options.checkpoint_activations,
        ),
    )
    model: LanguageModel | OptModel
    if isinstance(shape, OptConfig):
        for option, width in (
            ("features", data.width),
            ("speaker-embeddings", data.voice_width),
        ):
            if width:
                raise ConfigError(
                    f"--{option}: a model of the OPT kind takes none; use a Llama one"
                )
        if len(vocabulary.codes) > 1 and config.options.codes_pattern != "flat":
            raise ConfigError("a model of the OPT kind has one stream; use --codes-pattern flat")
        model = OptModel(shape, generator=generator)
    else:
        shape = dataclasses.replace(shape, features=data.width, voice=data.voice_width)
        model = LanguageModel(shape, generator=generator)
    pretrained.initialize(model, read, rows=rows, generator=generator)
    return model


def _ctc(
    options: Options,
    model: LanguageModel | OptModel,
    vocabulary: Vocabulary,
    table: Sequence[DecoderTask],
) -> SpeechCtc | None:
    if not options.ctc:
        return None
    if not 0 < options.ctc < math.inf:
        raise ConfigError(f"--ctc must be 0 or more, got {options.ctc:g}")
    if not any(map(recognizes, table)):
        raise ConfigError("--ctc: no task writes down speech; leave it out")
    if any(row.name == "ctc" for row in table):
        raise ConfigError("--ctc: a task has this name too; the log could not tell them apart")
    width = model.embedding.weight.shape[1]
    return SpeechCtc(width, vocabulary=vocabulary, tasks=table)
