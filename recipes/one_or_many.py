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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unitone import files, program
from unitone.config import command_line
from unitone.eval.scoring import ReadConfig
from unitone.lm import decode
from unitone.lm.decoder.options import DecodingConfig
from unitone.lm.decoder.template import TASKS
from unitone.recipes.steps import Step
from unitone.recipes.tour import stages
from unitone.recipes.tour.stages import SCORED, Training

logger = logging.getLogger(__name__)

SPOKEN = 120
"""Test sentences that are synthesized."""


@dataclass(frozen=True, kw_only=True)
class OneOrManyConfig:
    tour: Path = Path("exp/tour")
    """Folder of a finished tour."""
    out: Path = Path("exp/one-or-many")
    """Folder for the single-task models."""
    seconds: float = 520.0
    """What the joint model was trained for."""
    training: Training = field(default_factory=Training)


def steps(config: OneOrManyConfig) -> Iterator[Step[Any]]:
    """Yield the commands in order."""
    total = sum(task.weight for task in TASKS)
    for task in TASKS:
        if task.name in SCORED:
            yield from _task(config, task.name, config.seconds * task.weight / total)


def _task(config: OneOrManyConfig, task: str, seconds: float) -> Iterator[Step[Any]]:
    tour, run = config.tour, config.out / task
    joint, spoken = tour / "hyp" / f"{task}.jsonl", task == "tts"
    yield config.training.step(
        tokens=tour / "tokens",
        out=run / "lm",
        seconds=seconds,
        decoder=tour / "decoder",
        tasks=(task,),
    )
    yield _decode(config, task, model=run / "lm" / "best", out=run / "hyp.jsonl")
    if spoken:
        joint = run / "joint.jsonl"
        yield _decode(config, task, model=tour / "lm" / "best", out=joint)
    read = ReadConfig(
        ref=tour / "corpus" / "manifest.jsonl",
        hyp=run / "hyp.jsonl",
        against=joint,
        split="test",
        limit=SPOKEN if spoken else None,
        out=run / "scores",
    )
    yield stages.scoring(task, read, judge=tour / "judge")


def _decode(config: OneOrManyConfig, task: str, *, model: Path, out: Path) -> Step[Any]:
    how = stages.decoding(task, model=model, tokens=config.tour / "tokens", out=out)
    if task == "tts":
        how = replace(
            how,
            source=replace(how.source, limit=SPOKEN),
            audio=out.with_suffix(""),
            decoding=DecodingConfig(temperature=0.0),
        )
    return Step(how, decode.decode)


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
        found = files.read_json(config.out / task.name / "scores" / scored.file)
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
    for step in [*steps(config)]:  # all of them first: a wrong option is found before the work
        step.execute()
    found = table(config)
    files.write_text(config.out / "table.md", found)
    logger.info("\n%s", found)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(OneOrManyConfig, argv, __doc__)
    return program.run(lambda: compare(config))


if __name__ == "__main__":
    raise SystemExit(main())
