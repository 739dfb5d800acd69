"""The numbers of the tour's page: every task's score against its target, and what it confuses."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitone.errors import CorpusError, UnitoneError
from unitone.eval.scoring import number
from unitone.lm.decoder.template import DecoderTask
from unitone.lm.tasks import CLASSES
from unitone.recipes.tour.files import TourFiles
from unitone.recipes.tour.stages import NAR, SCORED, Scored
from unitone.report import figures, page
from unitone.report.page import Html

NAMES = {
    "asr": "Speech recognition",
    "tts": "Speech synthesis",
    "st": "Speech translation",
    "mt": "Text translation",
    "lid": "Language identification",
    "gid": "Speaker-gender identification",
    "continue": "Speech continuation",
}
_FIELDS = {
    "units": "speech",
    "text": "text",
    "translation": "translation",
    "to": "target language",
    "language": "language",
    "gender": "gender",
    "speaker": "speaker",
}


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a model is to reach."""

    wer: float = 10.0
    """Recognition, per cent, at the most."""
    margin: float = 10.0
    """Synthesis: points of CER above the ground truth, the recordings, at the most."""
    st: float = 50.0
    """BLEU of speech translation, at the least."""
    mt: float = 70.0
    """BLEU of text translation, at the least."""
    accuracy: float = 98.0
    """Language and gender, per cent, at the least."""


TARGETS = {"": Targets(), NAR: Targets(wer=5.0, margin=8.0)}
"""By the folder of a model's scores: the decoder-only model, the non-autoregressive one."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A line of the headline table; numbers are per cent, or BLEU points."""

    task: str
    measure: str
    value: float
    low: float
    high: float
    target: float
    least: bool
    """The target is the least that meets it, not the most."""
    close: bool
    """The interval holds the target: by chance, the verdict could be the other."""
    count: int
    """Utterances, or sentences."""
    remark: str = ""

    @property
    def met(self) -> bool:
        """Whether the score itself, not its interval, is on the right side of the target."""
        return self.value >= self.target if self.least else self.value <= self.target


def scores(tour: TourFiles, model: str = "") -> Iterator[Score | tuple[str, str]]:
    """Yield the score of every task that has a target, or (task, why there is none).

    ``model`` is the folder of its scores, a key of `TARGETS`.
    """
    for task in SCORED:
        try:
            yield _judged(tour, model) if task == "tts" else _scored(tour, task, model)
        except UnitoneError as error:
            yield task, str(error)


def _scored(tour: TourFiles, task: str, model: str) -> Score:
    targets, least = TARGETS[model], task != "asr"
    target = {"asr": targets.wer, "st": targets.st, "mt": targets.mt}.get(task, targets.accuracy)
    found = tour.json("scores", model, task, SCORED[task].file)
    return _score(found, SCORED[task], task=task, target=target, least=least)


def _judged(tour: TourFiles, model: str) -> Score:
    """Return the ASR judge's CER; that of ground truth varies too: the difference decides."""
    margin = TARGETS[model].margin
    found = tour.json("scores", model, "tts", SCORED["tts"].file)
    ground_truth = 100 * found["floor"]["cer"]
    score = _score(
        found["synthesised"],
        SCORED["tts"],
        task="tts",
        target=ground_truth + margin,
        remark=f"{number(ground_truth)} on recordings",
    )
    around = found["difference"]["cer"]["interval"]
    close = 100 * around["low"] <= margin <= 100 * around["high"]
    return dataclasses.replace(score, close=close)


def _score(
    found: Mapping[str, Any],
    scored: Scored,
    *,
    task: str,
    target: float,
    least: bool = False,
    remark: str = "",
) -> Score:
    name, scale = scored.key, scored.factor
    value, around = found[name], found[f"{name}_interval"]
    if value is None or around is None:
        raise CorpusError(f"scores/{task}: {name} is undefined")
    return Score(
        task=task,
        measure=scored.name,
        value=scale * value,
        low=scale * around["low"],
        high=scale * around["high"],
        target=target,
        least=least,
        close=scale * around["low"] <= target <= scale * around["high"],
        count=found.get("utterances") or found["sentences"],
        remark=remark,
    )


def headline(found: Sequence[Score | tuple[str, str]]) -> str:
    """Return the table of all scores and what stands under it."""
    rows = [_line(one) if isinstance(one, Score) else _missing(*one) for one in found]
    header = ("Task", "Score", "Target", "Met", "95 % interval", "Sentences")
    close = any(isinstance(one, Score) and one.close for one in found)
    remark = (
        "Test sentences were never seen in training; their voices were. "
        "Whether a target is met is decided by the score itself"
        + (
            "; where its interval holds the target, chance could turn the verdict."
            if close
            else "."
        )
        + " The ASR judge of synthesis was trained on recordings of other voices; its error on "
        f"real recordings of the same sentences plus {TARGETS[''].margin:g} points is the target."
    )
    return page.table(header, rows, numbers={1, 2, 4, 5}) + page.note(remark)


def _line(one: Score) -> tuple[str, ...]:
    return (
        named(one),
        Html(f"<strong>{number(one.value)}</strong>"),
        *verdict(one),
        f"{number(one.low)} to {number(one.high)}",
        f"{one.count:,}",
    )


def verdict(one: Score) -> tuple[str, Html]:
    """Return two cells: the target, and whether it is met."""
    said = ("✓ met" if one.met else "✗ not met") + (", within chance" if one.close else "")
    return (
        f"{'≥' if one.least else '≤'} {_target(one.target)}",
        Html(f'<span class="verdict {"good" if one.met else "bad"}">{said}</span>'),
    )


def named(one: Score) -> Html:
    """Return a cell: the task, and what is measured."""
    return _named(one.task, f"{one.measure}, {one.remark}" if one.remark else one.measure)


def _target(value: float) -> str:
    return f"{value:g}" if value == round(value) else number(value)


def _missing(task: str, why: str) -> tuple[str, ...]:
    return (_named(task, why), "–", "–", "not measured", "–", "–")


def _named(task: str, remark: str) -> Html:
    return Html(f"{NAMES[task]}<small>{page.escaped(remark)}</small>")


def confusions(tour: TourFiles) -> str:
    """Return the confusion matrices of the identification tasks."""
    drawn = []
    for task in ("lid", "gid"):
        found = tour.json("scores", task, "classify.json")
        matrix = np.asarray(found["confusion"], np.int64)
        known = int((matrix.sum(axis=1) > 0).sum())
        shown = matrix[:known]
        svg = figures.heat_map(
            f"Confusion matrix, {NAMES[task].lower()}",
            shown / shown.sum(axis=1, keepdims=True),
            rows=found["labels"][:known],
            columns=found["labels"],
            written=[[f"{value:,}" if value else "·" for value in row] for row in shown.tolist()],
            xlabel="taken for",
            ylabel=found["field"],
        )
        drawn.append(page.figure(svg, f"{NAMES[task]}: utterances of each row's class."))
    return page.grid(*drawn)


def task_table(tasks: Sequence[DecoderTask]) -> str:
    """Return the rows of the model's task table."""
    rows = [
        (
            NAMES.get(task.name, task.name),
            Html(f"<code>{page.escaped(task.template)}</code>"),
            _fields(task, target=False),
            _fields(task, target=True),
            _decoding(task),
            f"{task.weight:g}",
        )
        for task in tasks
    ]
    header = ("Task", "Template", "Given", "Learnt", "Decoding", "Weight")
    remark = (
        "One sequence a row: tokens in angle brackets, fields of an utterance in braces, and the "
        "loss on what stands between square brackets. In decoding, only tokens of the kind that is "
        "learnt can come out. Weights say how often a task comes up beside the others."
    )
    return page.table(header, rows, numbers={5}) + page.note(remark)


def _fields(task: DecoderTask, *, target: bool) -> str:
    named = [part.name for part in task.parts if part.kind == "field" and part.target == target]
    return ", ".join(_FIELDS.get(name, name) for name in named) or "nothing"


def _decoding(task: DecoderTask) -> str:
    decoding = task.decoding
    if task.output in CLASSES:
        return f"likeliest {task.output}"
    if decoding.beam > 1:
        return f"beam of {decoding.beam}"
    if decoding.temperature:
        nucleus = f", top-p {decoding.top_p:g}" if decoding.top_p < 1 else ""
        return f"drawn at temperature {decoding.temperature:g}{nucleus}"
    return "greedy"
