"""The README of a model directory: what the model is, what it was trained on, how good it is.

What nobody stated is said to be unstated, never left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.tasks import Task

UNSTATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A measured number with its 95 % interval."""

    name: str
    """What was measured on what: ``asr, WER % on an4 test``."""
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts of a model card that the files beside it don't tell."""

    title: str = "Speech and text language model"
    data: tuple[str, ...] = ()
    """Corpora it was trained on, with their splits."""
    hours: float | None = None
    """Of speech, all corpora together."""
    languages: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    """Of the data and of the weights it started from."""
    scores: tuple[Score, ...] = ()
    limits: tuple[str, ...] = ()
    """What it is not good for, as far as known."""
    made_by: str = ""
    """The command that made it."""


USAGE = """\
## Use

```
python -m lm.decode --model DIR --task {task} --manifest manifest.jsonl --out hyp.jsonl
unitone export --model DIR --to hf --out OTHER    # plain Llama files, for Transformers
```
"""


def write(
    card: Card,
    *,
    num_parameters: int,
    context: int,
    vocabulary: Vocabulary,
    tasks: Sequence[Task],
    layouts: Mapping[str, str],
) -> str:
    """Return the card as Markdown; ``layouts`` are the sequences of the tasks, if any."""
    hours = UNSTATED if card.hours is None else f"{card.hours:.4g}"
    sizes = ", ".join(f"{block.name} {block.size}" for block in vocabulary if block.size)
    sections = [
        f"# {card.title}\n",
        f"A model over one vocabulary of text and speech units: {num_parameters:,} "
        f"parameters, {context} positions of context, {len(vocabulary)} tokens ({sizes}).\n",
        _tasks(tasks, layouts),
        USAGE.format(task=tasks[0].name),
        f"## Data\n\n{_list(card.data)}\n- hours of speech: {hours}\n"
        f"- languages: {', '.join(card.languages) or UNSTATED}\n",
        f"## Licenses\n\n{_list(card.licenses)}\n",
        _scores(card.scores),
        f"## Limits\n\n{_list(card.limits)}\n",
    ]
    if card.made_by:
        sections.append(f"## Made by\n\n```\n{card.made_by}\n```\n")
    return "\n".join(sections)


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items or (UNSTATED,))


def _tasks(tasks: Sequence[Task], layouts: Mapping[str, str]) -> str:
    rows = [f"| {one.name} | {', '.join(one.inputs)} | {one.output} |" for one in tasks]
    if not layouts:
        return "\n".join(
            ["## Tasks\n", "| task | given | output |", "| --- | --- | --- |", *rows, ""]
        )
    rows = [f"{row} `{layouts[one.name]}` |\n" for row, one in zip(rows, tasks, strict=True)]
    return (
        "## Tasks\n\nWhat stands between square brackets is generated.\n\n"
        f"| task | given | output | sequence |\n| --- | --- | --- | --- |\n{''.join(rows)}"
    )


def _scores(scores: Sequence[Score]) -> str:
    if not scores:
        return f"## Scores\n\n{_list(())}\n"
    rows = []
    for score in scores:
        known = score.low is not None and score.high is not None
        interval = f"{score.low:.4g} to {score.high:.4g}" if known else UNSTATED
        rows.append(f"| {score.name} | {score.value:.4g} | {interval} |\n")
    return f"## Scores\n\n| score | value | 95 % interval |\n| --- | --- | --- |\n{''.join(rows)}"
