"""What a report's page shows of single utterances, and of what was taken for what."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from unitone.eval.metrics.edits import Step, confusions
from unitone.report import figures, page
from unitone.report.page import Html, escaped

_CONFUSIONS = 15
"""Of each kind of error."""
_CLASSES = 30
"""Of a confusion matrix that can still be read."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """An utterance of a list, its reference aligned with its hypothesis."""

    id: str
    remarks: Sequence[str]
    steps: Sequence[Step]


def worst(errors: Sequence[int], *, most: int) -> list[int]:
    """Return the places of the largest numbers of errors; those without an error are left out.

    >>> worst([0, 2, 5, 2], most=2)
    [2, 1]
    """
    wrong = [place for place, count in enumerate(errors) if count]
    return sorted(wrong, key=lambda place: -errors[place])[:most]


def aligned(examples: Iterable[Example], *, none: str) -> str:
    """Lay out utterances; ``none`` is said where there are none."""
    shown = [utterance(one.id, one.remarks, alignment(one.steps)) for one in examples]
    return legend() + "".join(shown) if shown else page.note(none)


def alignment(steps: Sequence[Step]) -> Html:
    """Lay out an alignment: reference above, hypothesis below, colors for what differs."""
    cells = "".join(
        f'<span class="{step.kind}"><b>{_side(step.reference)}</b>'
        f"<i>{_side(step.hypothesis)}</i></span>"
        for step in steps
    )
    return Html(f'<div class="alignment">{cells}</div>')


def _side(word: str | None) -> str:
    if word is None:
        return "∅"
    return "␣" if word == " " else html.escape(word)


def legend() -> str:
    """Say what the colors of `alignment` mean."""
    example = [
        Step(kind="sub", reference="reference", hypothesis="hypothesis"),
        Step(kind="del", reference="left out", hypothesis=None),
        Step(kind="ins", reference=None, hypothesis="added"),
    ]
    return alignment(example)


def utterance(title: str, remarks: Iterable[str], body: Html) -> str:
    """Return one utterance of a list: its id, remarks on it, what it is."""
    notes = "".join(f"<span>{escaped(remark)}</span>" for remark in remarks)
    return f'<div class="utterance"><p><strong>{escaped(title)}</strong>{notes}</p>{body}</div>'


def confusion_lists(alignments: Iterable[Sequence[Step]]) -> str:
    """Set the most frequent substitutions, deletions and insertions side by side."""
    lists: dict[str, list[tuple[str, str]]] = {"Substituted": [], "Left out": [], "Added": []}
    for (reference, hypothesis), times in confusions(alignments).most_common():
        if reference is None:
            lists["Added"].append((str(hypothesis), f"{times:,}"))
        elif hypothesis is None:
            lists["Left out"].append((reference, f"{times:,}"))
        else:
            lists["Substituted"].append((f"{reference} → {hypothesis}", f"{times:,}"))
    tables = [
        page.table((kind, "Times"), rows[:_CONFUSIONS], numbers={1})
        for kind, rows in lists.items()
        if rows
    ]
    return page.row(*tables) if tables else page.note("No errors.")


def confusion_matrix(
    matrix: Int[np.ndarray, "classes classes"], labels: Sequence[str], *, field: str, remark: str
) -> str:
    """Draw how often the row's class was taken for the column's; classes without rows are last."""
    if len(labels) > _CLASSES:
        return page.note(f"{len(labels)} classes are too many to draw; the JSON has them.")
    shown = matrix[matrix.any(axis=1)]
    svg = figures.heat_map(
        "Confusion matrix",
        (shown / shown.sum(axis=1, keepdims=True)).astype(np.float64),
        rows=labels[: len(shown)],
        columns=labels,
        written=[[f"{value:,}" if value else "·" for value in row] for row in shown.tolist()],
        xlabel="taken for",
        ylabel=field,
    )
    caption = "Utterances of each row's class; the deeper the color, the larger their share of it."
    return page.figure(svg, f"{caption}{remark}")
