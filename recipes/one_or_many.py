"""One model or many: the tour's joint model beside a model for each task, on the same budget.

    python -m recipes.one_or_many --tour exp/tour --out exp/one-or-many

The joint model of a finished tour was trained for so many seconds. Here every task gets a model of
its own of the same size, trained in the same way on the same data for the task's share of those
seconds (its weight in the task table, a share of the examples: a task with short sequences gets
more time than it had in the joint run, one with long sequences less), decoded and scored on the
same test sentences, and tested against the joint model's hypotheses utterance by utterance.
OUT/table.md is the comparison.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitone import files, program
from unitone.config import command_line
from unitone.eval import bleu, classify, wer
from unitone.lm import decode
from unitone.lm.tasks import TASKS
from unitone.recipes._steps import Main, Step
from unitone.recipes._tour_training import Training

logger = logging.getLogger(__name__)

SCORED: dict[str, tuple[str, Main, str, str, float]] = {
    "asr": ("eval.wer", wer.main, "wer", "WER %", 100.0),
    "st": ("eval.bleu", bleu.main, "bleu", "BLEU", 1.0),
    "mt": ("eval.bleu", bleu.main, "bleu", "BLEU", 1.0),
    "lid": ("eval.classify", classify.main, "accuracy", "accuracy %", 100.0),
    "gid": ("eval.classify", classify.main, "accuracy", "accuracy %", 100.0),
}
"""Task: command, its main, the score's key, how it is written, and its factor."""
FIELDS = {"lid": "language", "gid": "gender"}


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
    run, tokens = config.out / task, str(config.tour / "tokens")
    yield config.training.step(
        data=config.tour / "tokens", out=run / "lm", seconds=seconds, more=("--tasks", task)
    )
    hypotheses = str(run / "hyp.jsonl")
    to = ("--to", "en", "de", "fr") if task in ("st", "mt") else ()
    yield Step(
        module="lm.decode",
        arguments=(
            *("--model", str(run / "lm" / "best"), "--task", task, "--tokens", tokens),
            *("--split", "test", *to, "--out", hypotheses),
        ),
        main=decode.main,
    )
    module, main = SCORED[task][:2]
    field = ("--field", FIELDS[task]) if task in FIELDS else ()
    yield Step(
        module=module,
        arguments=(
            *("--ref", str(config.tour / "corpus" / "manifest.jsonl"), "--split", "test"),
            *("--hyp", hypotheses, "--against", str(config.tour / "hyp" / f"{task}.jsonl")),
            *(*field, "--out", str(run / "scores")),
        ),
        main=main,
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
        _, _, key, name, factor = SCORED[task.name]
        kind = SCORED[task.name][0].rpartition(".")[2]
        found = files.read_json(config.out / task.name / "scores" / f"{kind}.json")
        joint, p_value = found["other"], found["comparison"][key]["p_value"]
        cells = [f"{one[key] * factor:.1f} | {_span(one, key, factor)}" for one in (joint, found)]
        seconds = config.seconds * task.weight / total
        lines.append(
            f"| {task.name} | {name} | {' | '.join(cells)} | {p_value:.3g} | {seconds:.0f} |"
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
