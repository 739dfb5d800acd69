"""The tour: from nothing to a model that listens, speaks and translates, without a network.

``make tour`` or ``python -m recipes.tour``. A corpus in three languages is made (eSpeak NG) and
tokenised; a unit decoder, one language model for seven tasks, and a judge of other voices are
trained, within twelve minutes of two cores; the test sentences are decoded and scored, and
``exp/tour/report.html`` shows it all. Every step is a command a user can type; the tour prints each
before it runs. A finished step isn't done again, and a killed one goes on.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitone import files, program
from unitone.codecs import synthesize
from unitone.codecs import train as decoder_train
from unitone.config import command_line
from unitone.eval import bleu, classify, judge_score, judge_train, wer
from unitone.lm import decode
from unitone.recipes.espeak import corpus as espeak
from unitone.recipes.steps import Main, Step
from unitone.recipes.tour import report
from unitone.recipes.tour.training import CLASSES, DECODING, Training
from unitone.tokenizers import build, encode

logger = logging.getLogger(__name__)

TRANSLATIONS = ("st", "mt")


@dataclass(frozen=True, kw_only=True)
class TourConfig:
    out: Path = Path("exp/tour")
    """Folder for everything the tour makes."""
    utterances: int = 12_000
    """Size of the corpus; 12,000 are about six hours."""
    judge_utterances: int = 3_000
    """Size of the judge's corpus, of other voices and sentences."""
    k: int = 200
    """Number of units."""
    switch_penalty: float = 2.0
    """Price of a change of unit; see ``tokenizers.build``."""
    text_pieces: int = 640
    """Subwords of the text model; few sentences hold fewer."""
    lm_seconds: float = 520.0
    """Training time of the language model."""
    decoder_seconds: float = 90.0
    """Training time of the unit decoder."""
    judge_seconds: float = 105.0
    """Training time of the judge."""
    spoken: int = 120
    """Test sentences that are synthesised."""
    training: Training = field(default_factory=Training)


def steps(config: TourConfig) -> Iterator[Step]:
    """Yield the tour's commands in order."""
    yield from _data(config)
    yield from _training(config)
    yield from _decoding(config)
    yield from _scoring(config)


def _data(config: TourConfig) -> Iterator[Step]:
    out, manifest = config.out, _manifest(config)
    yield Step(
        module="recipes.espeak",
        arguments=("--out", str(out / "corpus"), "--utterances", str(config.utterances)),
        main=espeak.main,
    )
    yield Step(
        module="tokenizers.build",
        arguments=(
            *("--manifest", manifest, "--split", "train", "--ssl", "mfcc", "--k", str(config.k)),
            *("--duration-penalty", str(config.switch_penalty), "--unit-subwords", "0"),
            *("--text", "sentencepiece"),
            *("--text-subwords", str(config.text_pieces)),
            *("--out", str(out / "tokenizer")),
        ),
        main=build.main,
    )
    yield Step(
        module="tokenizers.encode",
        arguments=(
            *("--tokenizer", str(out / "tokenizer"), "--manifest", manifest),
            *("--out", str(out / "tokens")),
        ),
        main=encode.main,
    )


def _training(config: TourConfig) -> Iterator[Step]:
    out, threads = config.out, ("--threads", str(config.training.threads))
    yield Step(
        module="unitone.codecs.train",
        arguments=(
            *("--tokens", str(out / "tokens"), "--manifest", _manifest(config)),
            *("--tokenizer", str(out / "tokenizer"), "--split", "train"),
            *("--max-seconds", str(config.decoder_seconds), *threads),
            *("--out", str(out / "decoder")),
        ),
        main=decoder_train.main,
    )
    yield config.training.step(
        data=out / "tokens",
        out=out / "lm",
        seconds=config.lm_seconds,
        more=("--decoder", str(out / "decoder")),
    )
    judged = str(out / "judge-corpus")
    yield Step(
        module="recipes.espeak",
        arguments=(
            *("--voices", "judge", "--utterances", str(config.judge_utterances)),
            *("--out", judged),
        ),
        main=espeak.main,
    )
    yield Step(
        module="eval.judge_train",
        arguments=(
            *("--manifest", f"{judged}/manifest.jsonl", "--out", str(out / "judge")),
            *("--max-seconds", str(config.judge_seconds), *threads),
        ),
        main=judge_train.main,
    )


def _decoding(config: TourConfig) -> Iterator[Step]:
    out = config.out
    options: dict[str, tuple[str, ...]] = {
        **DECODING,
        "tts": (
            *("--temperature", "0.4", "--candidates", "64"),
            *("--audio", str(out / "hyp" / "audio-tts"), "--limit", str(config.spoken)),
        ),
        "continue": (
            *("--audio", str(out / "hyp" / "audio-continue"), "--limit", "12", "--prefix", "40"),
        ),
    }
    for task, more in options.items():
        yield Step(
            module="lm.decode",
            arguments=(
                *("--model", str(out / "lm" / "best"), "--task", task),
                *("--tokens", str(out / "tokens"), "--split", "test", *more),
                *("--out", str(_hypotheses(config, task))),
            ),
            main=decode.main,
        )
    yield Step(
        module="unitone.codecs.synthesize",
        arguments=(
            *("--model", str(out / "decoder"), "--tokens", str(out / "tokens")),
            *("--split", "test", "--limit", str(config.spoken), "--out", str(out / "resynthesis")),
        ),
        main=synthesize.main,
    )


def _scoring(config: TourConfig) -> Iterator[Step]:
    def scored(module: str, main: Main, task: str, *more: str) -> Step:
        paths = ("--ref", _manifest(config), "--hyp", str(_hypotheses(config, task)))
        out = str(config.out / "scores" / task)
        arguments = (*more, *paths, "--split", "test", "--out", out)
        return Step(module=module, arguments=arguments, main=main)

    yield scored("eval.wer", wer.main, "asr", "--by", "language")
    for task in TRANSLATIONS:
        yield scored("eval.bleu", bleu.main, task)
    for task, name in CLASSES.items():
        yield scored("eval.classify", classify.main, task, "--field", name)
    judge = ("--judge", str(config.out / "judge"), "--limit", str(config.spoken))
    yield scored("eval.judge_score", judge_score.main, "tts", *judge)


def _manifest(config: TourConfig) -> str:
    return str(config.out / "corpus" / "manifest.jsonl")


def _hypotheses(config: TourConfig, task: str) -> Path:
    return config.out / "hyp" / f"{task}.jsonl"


def tour(config: TourConfig) -> None:
    """Run every step and write the report."""
    started = time.perf_counter()
    done: list[dict[str, Any]] = []
    for step in steps(config):
        done.append({"command": step.typed, "seconds": step.run()})
        files.write_json(config.out / "tour.json", {"steps": done})
    page = report.write(config.out)
    best = config.out / "lm" / "best"
    logger.info("\nThe tour took %.0f s. Open %s", time.perf_counter() - started, page)
    logger.info("Try: unitone speak 'two dogs are playing' --model %s --out a.wav", best)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(TourConfig, argv, __doc__)
    return program.run(lambda: tour(config))


if __name__ == "__main__":
    raise SystemExit(main())
