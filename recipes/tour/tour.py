"""The tour: from nothing to a model that listens, speaks and translates, without a network.

``make tour`` or ``python -m recipes.tour``. A corpus in three languages is made (eSpeak NG) and
tokenized. A unit decoder, two models of all tasks, one decoder-only and one non-autoregressive, and
an ASR judge of other voices are trained, within twenty minutes of two cores. The test sentences are
decoded and scored, and ``exp/tour/report.html`` shows it all. Every step is a command a user can
type; the tour prints each before it runs. A finished step isn't done again; a killed one goes on.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unitone import files, program
from unitone.codecs import synthesize
from unitone.codecs import train as decoder_train
from unitone.config import command_line
from unitone.corpus.reading import ReadingConfig
from unitone.eval import judge_train
from unitone.eval.bench import families
from unitone.eval.scoring import ReadConfig
from unitone.lm import decode
from unitone.lm.decode import DecodeConfig
from unitone.lm.decoder.options import DecodingConfig
from unitone.lm.t2v2 import options as t2v2
from unitone.recipes.espeak import corpus as espeak
from unitone.recipes.espeak.corpus import EspeakCommand
from unitone.recipes.steps import Step
from unitone.recipes.tour import report, stages
from unitone.recipes.tour.stages import CLASSES, NAR, NAR_TASKS, TRANSLATIONS, Training
from unitone.tokenizers import build, encode
from unitone.tokenizers.options import ExtractorConfig

logger = logging.getLogger(__name__)

RENAMED = {"--switch-penalty": "--duration-penalty", "--text-pieces": "--text-subwords"}


@dataclass(frozen=True, kw_only=True)
class TourConfig:
    out: Path = Path("exp/tour")
    """Folder for everything the tour makes."""
    utterances: int = 12_000
    """Size of the corpus; 12,000 are about six hours."""
    judge_utterances: int = 3_000
    """Size of the ASR judge's corpus, of other voices and sentences."""
    k: int = 200
    """Number of units."""
    duration_penalty: float = 2.0
    """Price of a change of unit; see ``tokenizers.build``."""
    text_subwords: int = 640
    """Subwords of the text model; few sentences hold fewer."""
    lm_seconds: float = 520.0
    """Training time of the language model."""
    nar_seconds: float = 380.0
    """Training time of the non-autoregressive model."""
    decoder_seconds: float = 90.0
    """Training time of the unit decoder."""
    judge_seconds: float = 105.0
    """Training time of the ASR judge."""
    spoken: int = 120
    """Test sentences that are synthesized."""
    training: Training = field(default_factory=Training)


def steps(config: TourConfig) -> Iterator[Step[Any]]:
    """Yield the tour's commands in order."""
    yield from _data(config)
    yield from _training(config)
    yield from _decoding(config)
    yield from _scoring(config)


def _data(config: TourConfig) -> Iterator[Step[Any]]:
    out, manifest = config.out, _manifest(config)
    corpus = EspeakCommand(out=out / "corpus", utterances=config.utterances)
    yield Step(corpus, espeak.make)
    tokenizer = build.BuildConfig(
        out=out / "tokenizer",
        reading=ReadingConfig(manifest=manifest, split="train"),
        extractor=ExtractorConfig(ssl="mfcc"),
        k=config.k,
        duration_penalty=config.duration_penalty,
        unit_subwords=0,
        text="sentencepiece",
        text_subwords=config.text_subwords,
    )
    yield Step(tokenizer, build.build)
    tokens = encode.EncodeConfig(
        tokenizer=out / "tokenizer", reading=ReadingConfig(manifest=manifest), out=out / "tokens"
    )
    yield Step(tokens, encode.encode)


def _training(config: TourConfig) -> Iterator[Step[Any]]:
    out, threads = config.out, config.training.threads
    decoder = decoder_train.DecoderTrainConfig(
        tokens=out / "tokens",
        manifest=_manifest(config),
        tokenizer=out / "tokenizer",
        split="train",
        train=replace(decoder_train.MEL, max_seconds=config.decoder_seconds, threads=threads),
        out=out / "decoder",
    )
    yield Step(decoder, decoder_train.train)
    yield config.training.step(
        tokens=out / "tokens", out=out / "lm", seconds=config.lm_seconds, decoder=decoder.out
    )
    yield config.training.nar_step(
        tokens=out / "tokens", out=out / NAR, seconds=config.nar_seconds, decoder=decoder.out
    )
    judged = EspeakCommand(
        out=out / "judge-corpus", utterances=config.judge_utterances, voices="judge"
    )
    yield Step(judged, espeak.make)
    judge = judge_train.JudgeTrainConfig(
        manifest=judged.out / "manifest.jsonl",
        out=out / "judge",
        train=replace(judge_train.TRAINING, max_seconds=config.judge_seconds, threads=threads),
    )
    yield Step(judge, judge_train.train)


def _decoding(config: TourConfig) -> Iterator[Step[Any]]:
    out, hypotheses = config.out, config.out / "hyp"
    decoded = {
        task: stages.decoding(
            task, model=out / "lm" / "best", tokens=out / "tokens", out=_hypotheses(config, task)
        )
        for task in ("asr", *TRANSLATIONS, *CLASSES, "tts", "continue")
    }
    decoded["tts"] = replace(
        decoded["tts"],
        source=replace(decoded["tts"].source, limit=config.spoken),
        audio=hypotheses / "audio-tts",
        decoding=DecodingConfig(temperature=0.4, candidates=64),
    )
    decoded["continue"] = replace(
        decoded["continue"],
        source=replace(decoded["continue"].source, limit=12),
        audio=hypotheses / "audio-continue",
        prefix=40,
    )
    for one in (*decoded.values(), *_nar_decoding(config)):
        yield Step(one, decode.decode)
    resynthesis = synthesize.SynthesizeConfig(
        model=out / "decoder",
        tokens=out / "tokens",
        split="test",
        limit=config.spoken,
        out=out / "resynthesis",
    )
    yield Step(resynthesis, synthesize.synthesize)


def _nar_decoding(config: TourConfig) -> Iterator[DecodeConfig[Any]]:
    for task in NAR_TASKS:
        out = _hypotheses(config, task, NAR)
        how = stages.decoding(
            task, model=config.out / NAR / "best", tokens=config.out / "tokens", out=out
        )
        how = replace(how, decoding=t2v2.DecodingConfig())
        if task == "tts":
            how = replace(
                how,
                source=replace(how.source, limit=config.spoken),
                audio=out.parent / "audio-tts",
                decoding=t2v2.DecodingConfig(candidates=8),
            )
        yield how


def _scoring(config: TourConfig) -> Iterator[Step[Any]]:
    for task in ("asr", *TRANSLATIONS, *CLASSES, "tts"):
        read = ReadConfig(
            ref=_manifest(config),
            hyp=_hypotheses(config, task),
            split="test",
            by=("language",) if task == "asr" else (),
            limit=config.spoken if task == "tts" else None,
            out=config.out / "scores" / task,
        )
        yield stages.scoring(task, read, judge=config.out / "judge")
        if task not in NAR_TASKS:
            continue
        other = replace(
            read,
            hyp=_hypotheses(config, task, NAR),
            against=read.hyp,
            out=config.out / "scores" / NAR / task,
        )
        yield stages.scoring(task, other, judge=config.out / "judge")
    yield Step(
        families.FamiliesConfig(
            models=(config.out / "lm" / "best", config.out / NAR / "best"),
            tokens=config.out / "tokens",
            out=config.out / "scores" / "seconds.json",
            threads=config.training.threads,
            repeats=1,
        ),
        families.bench,
    )


def _manifest(config: TourConfig) -> Path:
    return config.out / "corpus" / "manifest.jsonl"


def _hypotheses(config: TourConfig, task: str, lane: str = "") -> Path:
    return config.out / "hyp" / lane / f"{task}.jsonl"


def tour(config: TourConfig) -> None:
    """Run every step and write the report."""
    started = time.perf_counter()
    done: list[dict[str, Any]] = []
    for step in [*steps(config)]:  # all of them first: a wrong option is found before the work
        done.append({"command": step.command, "seconds": step.execute()})
        files.write_json(config.out / "tour.json", {"steps": done})
    page = report.write(config.out)
    best = config.out / "lm" / "best"
    logger.info("\nThe tour took %.0f s. Open %s", time.perf_counter() - started, page)
    logger.info("Try: unitone speak 'two dogs are playing' --model %s --out a.wav", best)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(TourConfig, argv, __doc__, renamed=RENAMED)
    return program.run(lambda: tour(config))


if __name__ == "__main__":
    raise SystemExit(main())
