"""Speech recognition on one corpus, from its manifest to a word error rate with an interval."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unitone.corpus import perturb
from unitone.eval import wer
from unitone.lm import decode
from unitone.lm import train as lm_train
from unitone.recipes.steps import Step, compiling
from unitone.tokenizers import build, encode


@dataclass(frozen=True, kw_only=True)
class RecognitionConfig:
    manifest: Path
    """The corpus, with splits train, dev and test."""
    out: Path
    """Folder for everything."""
    ssl: str = "mfcc"
    """Encoder of the units: mfcc, or HuBERT or WavLM as ``tokenizers.build`` names them."""
    layer: int | None = None
    """Its layer; none with MFCC."""
    k: int = 200
    """Number of units."""
    switch_penalty: float = 0.0
    """Price of a change of unit; see ``tokenizers.build``."""
    pieces: int | None = 0
    """Subwords over the units; 0 = none, as ``ctc`` wants it: speech may not be shorter than its
    text; None: as many as the data hold."""
    speeds: tuple[float, ...] = (0.82, 0.88, 0.94, 1.06, 1.12, 1.18)
    """Speeds of the copies of the training recordings."""
    unit_mask: float = 0.2
    """Share of unit tokens hidden in training."""
    ctc: float = 1.0
    """Weight of the CTC loss that helps to find the alignment; 0 = none."""
    dropout: float = 0.1
    """In the model."""
    label_smoothing: float = 0.1
    """Share of a target's probability that is spread over the vocabulary."""
    config: str = "lm-micro"
    """Size of the model."""
    init: Path | None = None
    """Start from this model of ours and keep its size and its tokenizer; what is said above of
    units has no effect then."""
    steps: int = 2000
    """Optimiser steps."""
    lr: float = 2e-3
    """Peak learning rate."""
    max_tokens: int = 4096
    """Positions of a batch."""
    beam: int = 1
    """Hypotheses kept in decoding."""
    threads: int = 2
    """CPU threads."""
    compile: bool = True
    """Compile the model's blocks, where there is a C++ compiler."""


def run(config: RecognitionConfig) -> None:
    """Run every step; what is finished isn't done again."""
    for step in steps(config):
        step.run()


def steps(config: RecognitionConfig) -> Iterator[Step]:
    """Yield the commands in order."""
    out, corpus = config.out, config.out / "corpus"
    tokenizer, tokens = str(out / "tokenizer"), str(out / "tokens")
    manifest = str(corpus / "manifest.jsonl")
    yield Step(
        module="tokenizers.perturb",
        arguments=(
            *("--manifest", str(config.manifest), "--out", str(corpus)),
            *("--speeds", *map(str, config.speeds)),
        ),
        main=perturb.main,
    )
    if config.init is None:
        yield _build(config, manifest=manifest, tokenizer=tokenizer)
    else:
        tokenizer = str(config.init / "tokenizer")
    yield Step(
        module="tokenizers.encode",
        arguments=("--tokenizer", tokenizer, "--manifest", manifest, "--out", tokens),
        main=encode.main,
    )
    start = ("--init", str(config.init)) if config.init else ("--config", config.config)
    yield Step(
        module="lm.train",
        arguments=(
            *start,
            *("--data", tokens, "--out", str(out / "lm")),
            *("--tasks", "asr", "--steps", str(config.steps), "--lr", str(config.lr)),
            *("--max-tokens", str(config.max_tokens), "--unit-mask", str(config.unit_mask)),
            *("--dropout", str(config.dropout), "--label-smoothing", str(config.label_smoothing)),
            *("--ctc", str(config.ctc), "--precision", "bf16", "--best", "asr/wer"),
            *("--validate-every", str(max(1, config.steps // 15)), "--valid-utterances", "91"),
            *("--warmup-steps", "50", "--decay-share", "0.5", "--threads", str(config.threads)),
            *compiling(config.compile),
        ),
        main=lm_train.main,
    )
    hypotheses = str(out / "hyp" / "asr.jsonl")
    yield Step(
        module="lm.decode",
        arguments=(
            *("--model", str(out / "lm" / "best"), "--task", "asr", "--tokens", tokens),
            *("--split", "test", "--beam", str(config.beam), "--out", hypotheses),
        ),
        main=decode.main,
    )
    yield Step(
        module="eval.wer",
        arguments=(
            *("--ref", manifest, "--hyp", hypotheses, "--split", "test"),
            *("--out", str(out / "scores")),
        ),
        main=wer.main,
    )


def _build(config: RecognitionConfig, *, manifest: str, tokenizer: str) -> Step:
    layer = () if config.layer is None else ("--layer", str(config.layer))
    pieces = () if config.pieces is None else ("--unit-subwords", str(config.pieces))
    return Step(
        module="tokenizers.build",
        arguments=(
            *("--manifest", manifest, "--split", "train", "--ssl", config.ssl, *layer),
            *("--k", str(config.k), "--duration-penalty", str(config.switch_penalty)),
            *(*pieces, "--text", "characters", "--out", tokenizer),
        ),
        main=build.main,
    )
