"""What T2V2's paper claims, run again: guidance, passes, correction, auxiliary tasks, alignments.

    python -m recipes.experiments.t2v2_claims --tour exp/tour --out exp/t2v2-claims

On the tokens of a finished tour, a small model is trained for recognition and synthesis with every
``--seeds``, whole and with a piece of the training taken away, and decoded in the ways that the
paper compares. Synthesis is scored by the tour's ASR judge, through its unit decoder. Every setting
has a baseline that differs from it in one thing; the difference is taken seed by seed, and its
interval is Student's. Writes ``claims.json``, ``claims.md`` and ``claims.svg``.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unitone import files, program
from unitone.config import command_line
from unitone.errors import ConfigError
from unitone.eval.scoring import ReadConfig
from unitone.lm import decode
from unitone.lm import train as lm_train
from unitone.lm.decode import DecodeConfig
from unitone.lm.options import TRAINING, LmConfig, MixtureConfig, SourceConfig
from unitone.lm.t2v2.options import DecodingConfig, Options, Pieces
from unitone.recipes.steps import Step, compiles
from unitone.recipes.tour import stages
from unitone.recipes.tour.stages import SCORED
from unitone.report import figures

logger = logging.getLogger(__name__)

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}
"""0.975 quantile of Student's t for so many seeds."""

TRAININGS: dict[str, Pieces] = {
    "whole": Pieces(),
    "no-speech": Pieces(speech=False),
    "no-correction": Pieces(correction=False),
    "neither": Pieces(speech=False, correction=False),
    "align-ctc": Pieces(align="ctc"),
    "align-uniform": Pieces(align="uniform"),
}
CTC = DecodingConfig(rounds=0)
ONE = DecodingConfig(passes=1, guidance=0.0)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A training, a decoding, and what it is compared with."""

    name: str
    task: str
    training: str
    decoding: DecodingConfig
    baseline: str | None
    """Name of the setting that differs in one thing."""


def _settings() -> Iterator[Setting]:
    def asr(name: str, training: str, how: DecodingConfig, baseline: str | None) -> Setting:
        return Setting(name=name, task="asr", training=training, decoding=how, baseline=baseline)

    def tts(name: str, training: str, how: DecodingConfig, baseline: str | None) -> Setting:
        return Setting(name=name, task="tts", training=training, decoding=how, baseline=baseline)

    yield asr("CTC", "whole", CTC, None)
    for training in ("no-speech", "no-correction", "neither"):
        yield asr(f"CTC, {training}", training, CTC, "CTC")
    for threshold, rounds in ((0.8, 1), (0.8, 4), (0.8, 8), (0.7, 8), (0.7, 16), (0.7, 32)):
        how = DecodingConfig(threshold=threshold, rounds=rounds)
        yield asr(f"correction, threshold {threshold:g}, rounds {rounds}", "whole", how, "CTC")
    yield tts("1 pass", "whole", ONE, None)
    for training in ("no-correction", "align-ctc", "align-uniform"):
        yield tts(f"1 pass, {training}", training, ONE, "1 pass")
    for passes in (4, 8):
        yield tts(f"{passes} passes", "whole", replace(ONE, passes=passes), "1 pass")
    for guidance in (1.0, 1.5, 2.0):
        how = DecodingConfig(passes=4, guidance=guidance)
        yield tts(f"4 passes, guidance {guidance:g}", "whole", how, "4 passes")
    how = DecodingConfig(passes=4, guidance=1.0, twin="masked")
    yield tts("4 passes, guidance 1, masked twin", "whole", how, "4 passes, guidance 1")


SETTINGS: tuple[Setting, ...] = tuple(_settings())


@dataclass(frozen=True, kw_only=True)
class ClaimsConfig:
    tour: Path = Path("exp/tour")
    """Folder of a finished tour: tokens, unit decoder, ASR judge."""
    out: Path = Path("exp/t2v2-claims")
    """Folder for the models, what they decode, and the table."""
    config: str = "t2v2-tiny"
    """Size of the models."""
    steps: int = 600
    """Optimizer steps of each training."""
    max_tokens: int = 4096
    """Frames of a batch."""
    seeds: tuple[int, ...] = (0, 1, 2)
    trainings: tuple[str, ...] = tuple(TRAININGS)
    """Only these trainings, and what is decoded by them."""
    recognized: int = 300
    """Test utterances that are recognized."""
    spoken: int = 60
    """Test sentences that are synthesized."""
    threads: int = 2
    """CPU threads."""
    compile: bool = True
    """Compile the models, where there is a C++ compiler."""

    def __post_init__(self) -> None:
        if len(self.seeds) not in STUDENT:
            raise ConfigError(f"--seeds: {len(self.seeds)} of them; take {sorted(STUDENT)}")
        unknown = [name for name in self.trainings if name not in TRAININGS]
        if unknown:
            raise ConfigError(f"--trainings {unknown[0]}: there are {', '.join(TRAININGS)}")

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Those of the trainings that are asked for."""
        return tuple(one for one in SETTINGS if one.training in self.trainings)


def steps(config: ClaimsConfig) -> Iterator[Step[Any]]:
    """Yield the commands in order."""
    for seed in config.seeds:
        for name in config.trainings:
            yield Step(_training(config, name, seed), lm_train.train)
        for setting in config.settings:
            how = _decoding(config, setting, seed)
            yield Step(how, decode.decode)
            read = ReadConfig(
                ref=config.tour / "corpus" / "manifest.jsonl",
                hyp=how.out,
                split="test",
                limit=how.source.limit,
                out=how.out.with_suffix(""),
            )
            yield stages.scoring(setting.task, read, judge=config.tour / "judge")


def _run(config: ClaimsConfig, name: str, seed: int) -> Path:
    return config.out / f"seed-{seed}" / name


def _training(config: ClaimsConfig, name: str, seed: int) -> LmConfig[Options]:
    return LmConfig[Options](
        config=config.config,
        tokens=config.tour / "tokens",
        out=_run(config, name, seed) / "lm",
        tasks=("asr", "tts"),
        decoder=config.tour / "decoder",
        valid_utterances=24,
        options=Options(dropout=0.0, pieces=TRAININGS[name]),
        mixture=MixtureConfig(max_tokens=config.max_tokens),
        train=replace(
            TRAINING,
            seed=seed,
            steps=config.steps,
            precision="auto",
            lr=3e-3,
            warmup_steps=50,
            decay_share=0.6,
            validate_every=config.steps,
            threads=config.threads,
            compile=compiles(config.compile),
        ),
    )


def _decoding(config: ClaimsConfig, setting: Setting, seed: int) -> DecodeConfig[DecodingConfig]:
    run, name = _run(config, setting.training, seed), _slug(setting.name)
    spoken = setting.task == "tts"
    return DecodeConfig(
        model=run / "lm" / "last",
        task=setting.task,
        source=SourceConfig(
            tokens=config.tour / "tokens",
            split="test",
            limit=config.spoken if spoken else config.recognized,
        ),
        out=run / f"{name}.jsonl",
        audio=run / f"{name}-audio" if spoken else None,
        seed=seed,
        decoding=setting.decoding,
    )


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a setting gave, per cent; differences are from its baseline, seed by seed."""

    setting: Setting
    values: list[float]
    differences: list[float] = field(default_factory=list)

    def around(self) -> tuple[float, float]:
        """Return the 95 % interval of the mean difference."""
        reach = STUDENT[len(self.values)] * np.std(self.differences, ddof=1)
        middle = float(np.mean(self.differences))
        half = float(reach) / math.sqrt(len(self.values))
        return middle - half, middle + half


def collect(config: ClaimsConfig) -> list[Found]:
    """Read the scores of all settings."""
    values: dict[str, list[float]] = {}
    for setting in config.settings:
        scored = SCORED[setting.task]
        folder = _slug(setting.name)
        read = (
            files.read_json(_run(config, setting.training, seed) / folder / scored.file)
            for seed in config.seeds
        )
        values[setting.name] = [
            scored.factor * one.get("synthesised", one)[scored.key] for one in read
        ]
    return [
        Found(
            setting=one,
            values=values[one.name],
            differences=[
                own - other
                for own, other in zip(
                    values[one.name], values.get(one.baseline or "", []), strict=False
                )
            ],
        )
        for one in config.settings
    ]


def table(found: list[Found]) -> str:
    """Return the comparison in Markdown."""
    lines = [
        "| setting | score | mean | seeds | compared with | difference | 95 % |",
        "| --- | --- | ---: | --- | --- | ---: | --- |",
    ]
    for one in found:
        scored = SCORED[one.setting.task].name
        seeds = ", ".join(f"{value:.1f}" for value in one.values)
        cells = f"| {one.setting.name} | {scored} | {np.mean(one.values):.1f} | {seeds} |"
        if one.differences:
            low, high = one.around()
            cells += f" {one.setting.baseline} | {np.mean(one.differences):+.1f} |"
            cells += f" {low:+.1f} to {high:+.1f} |"
        else:
            cells += " | | |"
        lines.append(cells)
    return "\n".join(lines) + "\n"


def plot(found: list[Found]) -> str:
    """Return the differences with their intervals as SVG."""
    rows = []
    for one in found:
        if one.differences:
            low, high = one.around()
            middle = float(np.mean(one.differences))
            rows.append(
                figures.Measured(
                    name=f"{one.setting.task}: {one.setting.name}",
                    value=middle,
                    low=low,
                    high=high,
                    written=f"{middle:+.1f}",
                )
            )
    return figures.intervals(
        "T2V2's claims", rows, xlabel="points of error more than the baseline", reference=0.0
    )


def run(config: ClaimsConfig) -> None:
    """Train, decode and score; write the table and the plot."""
    for step in [*steps(config)]:  # all of them first: a wrong option is found before the work
        step.execute()
    found = collect(config)
    files.write_json(
        config.out / "claims.json",
        {one.setting.name: {"values": one.values, "differences": one.differences} for one in found},
    )
    files.write_text(config.out / "claims.md", table(found))
    files.write_text(config.out / "claims.svg", plot(found))
    logger.info("\n%s", table(found))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(ClaimsConfig, argv, __doc__)
    return program.run(lambda: run(config))


if __name__ == "__main__":
    raise SystemExit(main())
