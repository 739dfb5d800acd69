"""How the tour trains, decodes and scores; what is compared with it does the same."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unitone.eval import bleu, classify, judge_score, wer
from unitone.eval.scoring import ReadConfig, ScoringConfig
from unitone.eval.statistics import Resampling
from unitone.lm import decode
from unitone.lm import train as lm_train
from unitone.lm.decode import DecodeConfig
from unitone.lm.decoder.options import DecoderConfig, DecodingConfig, Options
from unitone.lm.options import TRAINING, LmConfig, MixtureConfig, SourceConfig
from unitone.lm.t2v2 import options as t2v2
from unitone.recipes.steps import Step, compiles
from unitone.train.config import TrainConfig

TRANSLATIONS = ("st", "mt")
CLASSES = {"lid": "language", "gid": "gender"}
"""Field of the manifest that a task has to find."""
NAR = "t2v2"
"""Folder of the non-autoregressive model, of its hypotheses and of its scores."""
NAR_TASKS = ("asr", "tts", "lid", "gid")
"""What the non-autoregressive model learns in the minutes that it has; docs/results.md says what
translation by CTC would want."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Where a task's score is to be found."""

    file: str
    """Of the folder that the command writes."""
    key: str
    name: str
    factor: float = 100.0


SCORED: dict[str, Scored] = {
    "asr": Scored(file="wer.json", key="wer", name="WER %"),
    "tts": Scored(file="judge.json", key="cer", name="CER % of the ASR judge"),
    **dict.fromkeys(TRANSLATIONS, Scored(file="bleu.json", key="bleu", name="BLEU", factor=1.0)),
    **dict.fromkeys(CLASSES, Scored(file="classify.json", key="accuracy", name="accuracy %")),
}


@dataclass(frozen=True, kw_only=True)
class Training:
    lm: str = "lm-micro"
    """Size of the language model; in minutes, a larger one learns less."""
    nar: str = "t2v2-tiny"
    """Size of the non-autoregressive model."""
    threads: int = 2
    """CPU threads."""
    compile: bool = True
    """Compile the language model, where there is a C++ compiler."""

    def step(
        self, *, tokens: Path, out: Path, seconds: float, decoder: Path, tasks: tuple[str, ...] = ()
    ) -> Step[Any]:
        """Train the language model for ``seconds``, on all tasks unless some are named."""
        config = DecoderConfig(
            config=self.lm,
            tokens=tokens,
            out=out,
            tasks=tasks,
            decoder=decoder,
            valid_utterances=24,
            options=Options(),
            mixture=MixtureConfig(max_tokens=4096),
            train=self._train(seconds),
        )
        return Step(config, lm_train.train)

    def nar_step(self, *, tokens: Path, out: Path, seconds: float, decoder: Path) -> Step[Any]:
        """Train the non-autoregressive model for ``seconds`` on `NAR_TASKS`.

        In minutes, more steps of fewer utterances learn more, and compiling takes too long.
        """
        config = LmConfig[t2v2.Options](
            config=self.nar,
            tokens=tokens,
            out=out,
            tasks=NAR_TASKS,
            decoder=decoder,
            valid_utterances=24,
            options=t2v2.Options(dropout=0.0),
            mixture=MixtureConfig(max_tokens=2048),
            train=replace(self._train(seconds), compile=False),
        )
        return Step(config, lm_train.train)

    def _train(self, seconds: float) -> TrainConfig:
        return replace(
            TRAINING,
            max_seconds=float(f"{seconds:g}"),
            precision="auto",
            lr=3e-3,
            warmup_steps=50,
            decay_share=0.6,
            validate_every=500,
            log_every=20,
            threads=self.threads,
            compile=compiles(self.compile),
        )


def decoding(task: str, *, model: Path, tokens: Path, out: Path) -> DecodeConfig[Any]:
    """Return how the language model decodes the test sentences of a task."""
    return decode.DecodeConfig(
        model=model,
        task=task,
        source=SourceConfig(tokens=tokens, split="test"),
        out=out,
        to=("en", "de", "fr") if task in TRANSLATIONS else (),
        decoding=DecodingConfig(beam=4) if task == "asr" else DecodingConfig(),
    )


def scoring(task: str, read: ReadConfig, *, judge: Path) -> Step[Any]:
    """Score the hypotheses of a task; ``judge`` is the ASR judge's directory."""
    if task in CLASSES:
        return Step(classify.ClassifyConfig(field=CLASSES[task], scoring=read), classify.score)
    options = ScoringConfig(**vars(read), resampling=Resampling())
    if task == "asr":
        return Step(wer.WerConfig(scoring=options), wer.score)
    if task in TRANSLATIONS:
        return Step(bleu.BleuConfig(scoring=options), bleu.score)
    return Step(judge_score.JudgeScoreConfig(judge=judge, scoring=options), judge_score.score)
