"""One model or many: the tour's joint model beside a model for each task, on the same budget.

    python -m recipes.one_or_many --tour exp/tour --out exp/one-or-many

The joint model of a finished tour was trained for so many seconds. Here every task gets a model of
its own of the same size, trained in the same way on the same data for the task's share of those
seconds (its weight in the task table, a share of the examples: a task with short sequences gets
more time than it had in the joint run, one with long sequences less), decoded in the same way and
scored on the same test sentences, and tested against the joint model's hypotheses utterance by
utterance. A model that only speaks can't choose among candidates by its own recognition, so
synthesis is greedy here for both. OUT/table.md is the comparison.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitone import files, program
from unitone.config import command_line
from unitone.eval import bleu, classify, judge_score, wer
from unitone.lm import decode
from unitone.lm.decoder.template import TASKS
from unitone.recipes.steps import Main, Step
from unitone.recipes.tour.training import CLASSES, DECODING, Training

logger = logging.getLogger(__name__)

SPOKEN = "120"
"""Test sentences that are synthesised."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """How a task is scored."""

    module: str
    main: Main
    key: str
    """Of the score in the file that the command writes."""
    name: str
    factor: float = 100.0
    options: tuple[str, ...] = ()
    """Of the command."""


SCORED: dict[str, Scored] = {
    "asr": Scored(module="eval.wer", main=wer.main, key="wer", name="WER %"),
    "tts": Scored(
        module="eval.judge_score",
        main=judge_score.main,
        key="cer",
        name="CER % of the judge",
        options=("--limit", SPOKEN),
    ),
    **{
        task: Scored(module="eval.bleu", main=bleu.main, key="bleu", name="BLEU", factor=1.0)
        for task in ("st", "mt")
    },
    **{
        task: Scored(
            module="eval.classify",
            main=classify.main,
            key="accuracy",
            name="accuracy %",
            options=("--field", field),
        )
        for task, field in CLASSES.items()
    },
}


@dataclass(frozen=True, kw_only=True)
class OneOrManyConfig:
    tour: Path = Path("exp/tour")
    """Folder of a finished tour."""
    out: Path = Path("exp/one-or-many")
    """Folder for the single-task models."""
    seconds: float = 520.0
    """What the joint model was trained for."""
    training: Training = field(default_factory=Training)


def steps(config: OneOrManyConfig) -> Iterator[Step]:
    """Yield the commands in order."""
    total = sum(task.weight for task in TASKS)
    for task in TASKS:
        if task.name in SCORED:
            yield from _task(config, task.name, config.seconds * task.weight / total)


def _task(config: OneOrManyConfig, task: str, seconds: float) -> Iterator[Step]:
    tour, run = config.tour, config.out / task
    scored, joint = SCORED[task], tour / "hyp" / f"{task}.jsonl"
    yield config.training.step(
        data=tour / "tokens",
        out=run / "lm",
        seconds=seconds,
        more=("--tasks", task, "--decoder", str(tour / "decoder")),
    )
    yield _decode(config, task, model=run / "lm" / "best", out=run / "hyp.jsonl")
    more = scored.options
    if task == "tts":
        joint = run / "joint.jsonl"
        yield _decode(config, task, model=tour / "lm" / "best", out=joint)
        more = (*more, "--judge", str(tour / "judge"))
    yield Step(
        module=scored.module,
        arguments=(
            *("--ref", str(tour / "corpus" / "manifest.jsonl"), "--split", "test"),
            *("--hyp", str(run / "hyp.jsonl"), "--against", str(joint)),
            *(*more, "--out", str(run / "scores")),
        ),
        main=scored.main,
    )


def _decode(config: OneOrManyConfig, task: str, *, model: Path, out: Path) -> Step:
    options = DECODING.get(task, ())
    if task == "tts":
        options = ("--temperature", "0", "--limit", SPOKEN, "--audio", str(out.with_suffix("")))
    return Step(
        module="lm.decode",
        arguments=(
            *("--model", str(model), "--task", task, "--tokens", str(config.tour / "tokens")),
            *("--split", "test", *options, "--out", str(out)),
        ),
        main=decode.main,
    )


def table(config: OneOrManyConfig) -> str:
    """Return the comparison in Markdown."""
    total = sum(task.weight for task in TASKS)
    lines = [
        "| task | score | joint | 95 % | single | 95 % | p | seconds, single |",
        "| --- | --- | ---: | --- | ---: | --- | ---: | ---: |",
    ]
    for task in TASKS:
        if task.name not in SCORED:
            continue
        scored = SCORED[task.name]
        folder = config.out / task.name / "scores"
        kind = scored.module.rpartition(".")[2].removesuffix("_score")
        found = files.read_json(folder / f"{kind}.json")
        single, joint = found.get("synthesised", found), found["other"]
        p_value = found["comparison"][scored.key]["p_value"]
        cells = [
            f"{one[scored.key] * scored.factor:.1f} | {_span(one, scored.key, scored.factor)}"
            for one in (joint, single)
        ]
        seconds = config.seconds * task.weight / total
        lines.append(
            f"| {task.name} | {scored.name} | {' | '.join(cells)} | {p_value:.3g} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _span(score: dict[str, Any], key: str, factor: float) -> str:
    interval = score.get(f"{key}_interval") or score["interval"]
    low, high = interval.values() if isinstance(interval, dict) else interval
    return f"{low * factor:.1f} to {high * factor:.1f}"


def compare(config: OneOrManyConfig) -> None:
    """Train, decode and score the single-task models; write the table."""
    for step in steps(config):
        step.run()
    found = table(config)
    files.write_text(config.out / "table.md", found)
    logger.info("\n%s", found)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(OneOrManyConfig, argv, __doc__)
    return program.run(lambda: compare(config))


if __name__ == "__main__":
    raise SystemExit(main())
