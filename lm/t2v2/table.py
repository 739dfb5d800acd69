"""The tasks of T2V2.

Recognition and synthesis are learnt together, from the same utterances; which of the two names an
example is drawn under makes no difference.
"""

from dataclasses import dataclass
from typing import Literal

from unitone.lm.tasks import Metric, Task

Kind = Literal["pair", "st", "mt", "class"]
"""How an example is learnt: speech and its text, translations of either, a class of the speech."""


@dataclass(frozen=True, kw_only=True)
class T2V2Task:
    """A task, and how it is learnt."""

    task: Task
    kind: Kind

    @property
    def name(self) -> str:
        """Of the task."""
        return self.task.name

    @property
    def fields(self) -> tuple[str, ...]:
        """What an example has to have."""
        return self.task.fields


def _task(
    name: str,
    inputs: tuple[str, ...],
    output: str,
    metric: Metric,
    kind: Kind,
    *,
    weight: float,
    optional: tuple[str, ...] = (),
) -> T2V2Task:
    task = Task(
        name=name, inputs=inputs, output=output, metric=metric, weight=weight, optional=optional
    )
    return T2V2Task(task=task, kind=kind)


TASKS: tuple[T2V2Task, ...] = (
    _task("asr", ("units",), "text", "wer", "pair", weight=6.0),
    _task(
        *("tts", ("text",), "units", "units", "pair"),
        weight=6.0,
        optional=("language", "speaker"),
    ),
    _task("st", ("units", "to"), "translation", "bleu", "st", weight=4.0),
    _task("mt", ("text", "to"), "translation", "bleu", "mt", weight=3.0),
    _task("lid", ("units",), "language", "accuracy", "class", weight=0.3),
    _task("gid", ("units",), "gender", "accuracy", "class", weight=0.3),
)
"""The tasks."""
