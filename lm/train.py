"""Train a decoder-only model: ``python -m lm.train --config lm-small --data exp/tokens --out RUN``.

The same program on one CPU and under ``torchrun --nproc-per-node N -m unitone.lm.train …``. It
may be killed at any moment and run again with the same command: it goes on. ``RUN/best`` and
``RUN/last`` are model directories; ``RUN/metrics.jsonl`` has the curves.
"""

import dataclasses
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unitone import model_dir, program, seeding
from unitone.audio import SAMPLE_RATE
from unitone.codecs import unit_decoder
from unitone.codecs.codec import read_config
from unitone.config import command_line, to_dict
from unitone.errors import ConfigError
from unitone.lm import family, tasks
from unitone.lm.data import store
from unitone.lm.data.mixture import DataConfig, Mixture
from unitone.lm.data.store import TokenStore
from unitone.lm.data.vocabulary import SPECIALS, Vocabulary
from unitone.lm.decoder.codes import CodesOfModel, Pattern
from unitone.lm.decoder.layout import Composer
from unitone.lm.decoder.model import LanguageModel, size
from unitone.lm.decoder.objective import NextToken
from unitone.lm.decoder.speech_ctc import SpeechCtc, reads
from unitone.lm.interop import finetune, pretrained
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.interop.pretrained import Pretrained
from unitone.lm.interop.token_rows import shared_rows
from unitone.lm.model_card import Card
from unitone.lm.speaking import open_codec
from unitone.lm.tasks import Task
from unitone.lm.validation import Validator
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import FOLDER
from unitone.train import distributed
from unitone.train.distributed import World
from unitone.train.trainer import TrainConfig, Trainer

logger = logging.getLogger(__name__)

VALIDATION_EXAMPLES = 100
"""Examples of each task whose loss is the validation's."""

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
class LmConfig:
    data: Path
    """Token shards, of ``python -m tokenizers.encode``."""
    out: Path
    """Folder of the run."""
    config: str = "lm-mini"
    """Size of the model: lm-tiny (2M), lm-micro (3M), lm-mini (5M), lm-small (29M), lm-160m,
    lm-350m, lm-1.3b."""
    init: Path | None = None
    """Start from this model; its shape replaces --config. One of ours, for shards of the same
    tokenizer, or a text model, a Hugging Face directory of the Llama or OPT kind. It has to stay
    until the run is done."""
    table: Literal["unitone", "voxtlm", "polyspeech", "codes"] = "unitone"
    """Task table: how the tasks are laid out."""
    rows: Path | None = None
    """JSON list of rows that join the table, or take the place of those with their names."""
    tasks: tuple[str, ...] = ()
    """Rows of it; default: all."""
    tokenizer: Path | None = None
    """Tokenizer directory; default: the copy inside the shards."""
    codes_pattern: Pattern | None = None
    """How codec codes lie in a sequence, for tasks with {codes}: delay (side by side, each level a
    step later; the default) or flat (one behind the other)."""
    code_levels: int | None = None
    """The first so many levels of the codes; default: all that the shards have."""
    split: tuple[str, ...] = ("train",)
    """Splits that are learnt."""
    valid_split: tuple[str, ...] = ("dev",)
    """Splits that validation looks at."""
    valid_utterances: int = 32
    """Utterances that validation decodes for each task; 0 looks at the loss only."""
    context: int = 1024
    """Longest sequence, in positions; longer examples are left out and counted."""
    decoder: Path | None = None
    """Unit decoder of ``python -m codecs.train``, or the codec of the codes, that the model
    directories carry a copy of, so that they can speak."""
    features: Path | None = None
    """Folder of ``python -m tokenizers.features``, for tasks that read {features}."""
    voices: Path | None = None
    """Safetensors file with a vector for every utterance id or speaker, for tasks that read
    {voice}."""
    dropout: float = 0.0
    """Of what attention and feed-forward add."""
    label_smoothing: float = 0.0
    """Share of a target's probability that is spread over the vocabulary; 0.1 is usual."""
    ctc: float = 0.0
    """Weight of a CTC loss at the positions of the speech, in recognition; 0.3 to 1 is usual. It
    finds the alignment where there is little data. Speech shorter than its text, in tokens, counts
    nothing; units without subwords are long enough."""
    checkpoint_activations: bool = False
    """Compute the blocks' inside again in the backward pass: less memory, a third more work."""
    mixture: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = TRAINING

    @property
    def table_rows(self) -> tuple[Task, ...]:
        """The tasks that are trained."""
        table = tasks.TABLES[self.table]
        if self.rows is not None:
            table = tasks.extended(table, tasks.read(self.rows))
        rows = tasks.select(table, self.tasks) if self.tasks else table
        weights = self.mixture.weights
        tasks.select(rows, weights)  # refuses names that aren't there
        return tuple(
            dataclasses.replace(
                row,
                weight=weights.get(row.name, row.weight),
                sample_tokens=self.mixture.sample_tokens or row.sample_tokens,
            )
            for row in rows
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What `prepare` has made of a configuration."""

    model: LanguageModel | OptModel
    vocabulary: Vocabulary
    composer: Composer
    tokenizer: Path
    codes: CodesOfModel | None
    tasks: tuple[Task, ...]
    train: Mixture
    valid: TokenStore | None
    card: Card


def prepare(config: LmConfig, world: World) -> Run:
    """Open the data and build the model; what is written, the first process writes.

    Raises:
        ConfigError: options or artefacts that don't go together.
        CheckpointError: an artefact is missing or damaged.
    """
    shards = TokenShards(config.data)
    tokenizer = config.tokenizer or config.data / FOLDER
    table = config.table_rows
    if config.voices is not None and not any("voice" in task.fields for task in table):
        raise ConfigError("--voices: no task reads {voice}; add a row that does, or leave it out")
    codes = _codes(config, shards, table)
    vocabulary = _vocabulary(shards, Passport.load(tokenizer), table, codes)
    pattern = codes.pattern if codes else "delay"
    composer = Composer.open(tokenizer, vocabulary, pattern=pattern)
    for task in table:
        composer.check(task)

    if not world.first:
        world.gather(None)  # until the first has written the stores
    training = _store(config, "train", config.split, shards=shards, composer=composer)
    valid = None
    if shards.distinct("split") & {*config.valid_split}:
        valid = _store(config, "valid", config.valid_split, shards=shards, composer=composer)
    if world.first:
        world.gather(None)
    if valid is None:
        logger.warning("no utterance of split %s: no validation", ", ".join(config.valid_split))
    model = _model(config, vocabulary, tokenizer=tokenizer, codes=codes, data=training)
    mixture = Mixture(
        config.mixture,
        store=training,
        composer=composer,
        table=table,
        context=model.config.context,
        seed=config.train.seed,
    )
    card = Card(
        data=tuple(f"{config.data}, split {split}" for split in config.split),
        hours=training.num_samples / SAMPLE_RATE / 3600,
        languages=tuple(training.labels["language"]),
        made_by=" ".join(sys.argv),
    )
    return Run(
        model=model,
        vocabulary=vocabulary,
        composer=composer,
        tokenizer=tokenizer,
        codes=codes,
        tasks=table,
        train=mixture,
        valid=valid,
        card=card,
    )


def _store(
    config: LmConfig,
    name: str,
    split: tuple[str, ...],
    *,
    shards: TokenShards,
    composer: Composer,
) -> TokenStore:
    return store.build(
        config.out / "store" / name,
        shards=shards,
        composer=composer,
        split=split,
        features=config.features,
        voice_file=config.voices,
    )


def _codes(config: LmConfig, shards: TokenShards, table: Sequence[Task]) -> CodesOfModel | None:
    """Return what the codes of the model will be; None where no task has any."""
    if not any("codes" in task.fields for task in table):
        for option, value in (
            ("codes-pattern", config.codes_pattern),
            ("code-levels", config.code_levels),
        ):
            if value is not None:
                raise ConfigError(f"--{option}: no task has {{codes}}; try --table codes")
        return None
    found = shards.require_codes()
    levels = found.levels if config.code_levels is None else config.code_levels
    if not 1 <= levels <= found.levels:
        raise ConfigError(
            f"--code-levels {levels}: the shards in {config.data} have 1 to {found.levels}; "
            "`python -m unitone.codecs.encode --levels` makes more"
        )
    return CodesOfModel(codec=found.codec, levels=levels, pattern=config.codes_pattern or "delay")


def _vocabulary(
    shards: TokenShards, passport: Passport, table: Sequence[Task], codes: CodesOfModel | None
) -> Vocabulary:
    """Lay out what the tasks and the shards call for."""
    if passport.hash != shards.passport.hash:
        raise ConfigError(
            "--tokenizer: its passport is not that of the shards; give the directory they were "
            "encoded with"
        )
    tokens = {part.name for task in table for part in task.parts if part.kind == "token"}
    named = sorted(token[1:-1] for token in tokens if ":" not in token)
    fields = {name for task in table for name in task.fields}
    pieces = passport.unit_pieces
    return Vocabulary.build(
        text=passport.text.size,
        units=pieces.size if pieces else passport.kmeans.k,
        codes=(codes.codec.codebook_size,) * codes.levels if codes else (),
        tasks=sorted(t[len("<task:") : -1] for t in tokens if t.startswith("<task:")),
        languages=sorted(shards.distinct("language") | shards.distinct("translation")),
        genders=sorted(shards.distinct("gender")),
        speakers=sorted(shards.distinct("speaker")) if "speaker" in fields else (),
        special=(*SPECIALS, *(name for name in named if name not in SPECIALS)),
        passport=passport.hash,
    )


def _model(
    config: LmConfig,
    vocabulary: Vocabulary,
    *,
    tokenizer: Path,
    codes: CodesOfModel | None,
    data: TokenStore,
) -> LanguageModel | OptModel:
    if config.init is not None:
        if finetune.is_ours(config.init):
            read, rows = finetune.read(config.init, vocabulary, codes=codes)
        else:
            read = pretrained.read(config.init)
            rows = shared_rows(read, vocabulary, tokenizer=tokenizer)
        return _from_pretrained(config, vocabulary, read, rows=rows, data=data)
    shape = size(
        config.config, vocab_size=len(vocabulary), context=config.context, features=data.width
    )
    transformer = dataclasses.replace(
        shape.transformer,
        dropout=config.dropout,
        checkpoint_activations=config.checkpoint_activations,
    )
    shape = dataclasses.replace(shape, transformer=transformer, voice=data.voice_width)
    generator = seeding.torch_generator(config.train.seed, "weights")
    return LanguageModel(shape, generator=generator)


def _from_pretrained(
    config: LmConfig,
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
            dropout=config.dropout,
            checkpoint_activations=config.checkpoint_activations,
        ),
    )
    model: LanguageModel | OptModel
    if isinstance(shape, OptConfig):
        for option, width in (("features", data.width), ("voices", data.voice_width)):
            if width:
                raise ConfigError(
                    f"--{option}: a model of the OPT kind takes none; use a Llama one"
                )
        if len(vocabulary.codes) > 1 and config.codes_pattern != "flat":
            raise ConfigError("a model of the OPT kind has one stream; use --codes-pattern flat")
        model = OptModel(shape, generator=generator)
    else:
        shape = dataclasses.replace(shape, features=data.width, voice=data.voice_width)
        model = LanguageModel(shape, generator=generator)
    pretrained.initialise(model, read, rows=rows, generator=generator)
    return model


def train(config: LmConfig) -> None:
    """Train; go on where an earlier run in ``config.out`` stopped."""
    with distributed.started(config.train.device) as world:
        _train(config, world)


def _train(config: LmConfig, world: World) -> None:
    run = prepare(config, world)
    objective = NextToken(
        run.model,
        vocabulary=run.vocabulary,
        tasks=[task.name for task in run.tasks],
        label_smoothing=config.label_smoothing,
        ctc=_ctc(config, run),
        ctc_weight=config.ctc,
    )
    shares = ", ".join(
        f"{task.name} {share:.0%}" for task, share in zip(run.tasks, run.train.shares, strict=True)
    )
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    logger.info(
        "%s: %.1f M weights, %d tokens", config.config, parameters / 1e6, len(run.vocabulary)
    )
    logger.info("examples: %s", ", ".join(f"{n} {c}" for n, c in run.train.counts().items()))
    logger.info("mixture: %s", shares)

    decoder = _decoder(config, run)

    def save_model(folder: Path) -> None:
        family.save(
            folder,
            model=run.model,
            vocabulary=run.vocabulary,
            tasks=run.tasks,
            tokenizer=run.tokenizer,
            decoder=decoder,
            codes=run.codes,
            card=run.card,
        )

    validator = _validator(config, run, objective)
    best = config.train.best if validator else None
    if validator and best and best not in validator.metrics:
        raise ConfigError(f"--best {best}: there are {', '.join(validator.metrics)}")
    Trainer(
        dataclasses.replace(config.train, best=best),
        networks={"model": objective},
        source=run.train,
        out=config.out,
        validate=validator,
        save_model=save_model,
        settings={
            **to_dict(config),
            "vocabulary": run.vocabulary.hash,
            "store": run.train.identity,
            "weights": {task.name: task.weight for task in run.tasks},
            **({"templates": {t.name: t.template for t in run.tasks}} if config.rows else {}),
        },
        may_differ=("valid_utterances",),
    ).run()


def _ctc(config: LmConfig, run: Run) -> SpeechCtc | None:
    if not config.ctc:
        return None
    if not 0 < config.ctc < math.inf:
        raise ConfigError(f"--ctc must be 0 or more, got {config.ctc:g}")
    if not any(map(reads, run.tasks)):
        raise ConfigError("--ctc: no task writes down speech; leave it out")
    if any(task.name == "ctc" for task in run.tasks):
        raise ConfigError("--ctc: a task has this name too; the log could not tell them apart")
    width = run.model.embedding.weight.shape[1]
    return SpeechCtc(width, vocabulary=run.vocabulary, tasks=run.tasks)


def _decoder(config: LmConfig, run: Run) -> Path | None:
    """Return the folder of the unit decoder or codec, which must know the units or codes."""
    if config.decoder is None:
        return None
    folder = model_dir.resolve(config.decoder)
    if read_config(folder)["codec"] != unit_decoder.NAME:
        if run.codes is None:
            raise ConfigError(f"--decoder {config.decoder} takes codes; no task has {{codes}}")
        open_codec(folder, run.codes)
        return folder
    run.vocabulary.require_passport(Passport.load(folder).hash, of=str(config.decoder))
    return folder


def _validator(config: LmConfig, run: Run, objective: NextToken) -> Validator | None:
    if run.valid is None:
        return None
    most = max(len(run.valid.examples(task, run.composer)[0]) for task in run.tasks)
    plain = dataclasses.replace(  # as many examples of each task
        config.mixture,
        mixing="temperature",
        temperature=0.0,
        null_share=0.0,
        unit_mask=0.0,
        packing=False,
        round_examples=min(most, VALIDATION_EXAMPLES) * len(run.tasks),
    )
    mixture = Mixture(
        plain,
        store=run.valid,
        composer=run.composer,
        table=run.tasks,
        context=run.model.config.context,
        seed=0,
    )
    return Validator(
        objective=objective,
        model=run.model,
        composer=run.composer,
        tasks=run.tasks,
        store=run.valid,
        batches=[mixture.load(spec) for spec in mixture.plan(0)],
        utterances=config.valid_utterances,
        max_tokens=config.mixture.max_tokens,
        bf16=config.train.precision == "bf16",
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(LmConfig, argv, __doc__)
    return program.run(lambda: train(config))


if __name__ == "__main__":
    raise SystemExit(main())
