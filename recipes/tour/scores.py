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
_TTS_MARGIN = 10.0
"""Points of CER that synthesis may lie above the ground truth, the recordings."""


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


def scores(tour: TourFiles) -> Iterator[Score | tuple[str, str]]:
    """Yield the score of every task that has a target, or (task, why there is none)."""
    for task, read in _READ.items():
        try:
            yield read(tour)
        except UnitoneError as error:
            yield task, str(error)


def _wer(tour: TourFiles) -> Score:
    found = tour.json("scores", "asr", "wer.json")
    return _score(found, "wer", task="asr", measure="WER %", target=10.0, scale=100.0)


def _bleu(task: str, target: float) -> Any:
    def read(tour: TourFiles) -> Score:
        found = tour.json("scores", task, "bleu.json")
        return _score(found, "bleu", task=task, measure="BLEU", target=target, least=True)

    return read


def _accuracy(task: str) -> Any:
    def read(tour: TourFiles) -> Score:
        found = tour.json("scores", task, "classify.json")
        return _score(
            found, "accuracy", task=task, measure="accuracy %", target=98.0, scale=100.0, least=True
        )

    return read


def _judged(tour: TourFiles) -> Score:
    """Return the ASR judge's CER; that of ground truth varies too: the difference decides."""
    found = tour.json("scores", "tts", "judge.json")
    ground_truth = 100 * found["floor"]["cer"]
    score = _score(
        found["synthesised"],
        "cer",
        task="tts",
        measure="ASR judge's CER %",
        target=ground_truth + _TTS_MARGIN,
        scale=100.0,
        remark=f"{number(ground_truth)} on recordings",
    )
    around = found["difference"]["cer"]["interval"]
    close = 100 * around["low"] <= _TTS_MARGIN <= 100 * around["high"]
    return dataclasses.replace(score, close=close)


_READ = {
    "asr": _wer,
    "tts": _judged,
    "st": _bleu("st", 50.0),
    "mt": _bleu("mt", 70.0),
    "lid": _accuracy("lid"),
    "gid": _accuracy("gid"),
}


def _score(
    found: Mapping[str, Any],
    name: str,
    *,
    task: str,
    measure: str,
    target: float,
    scale: float = 1.0,
    least: bool = False,
    remark: str = "",
) -> Score:
    value, around = found[name], found[f"{name}_interval"]
    if value is None or around is None:
        raise CorpusError(f"scores/{task}: {name} is undefined")
    return Score(
        task=task,
        measure=measure,
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
        + " The ASR judge of synthesis was trained on recordings of other voices; its "
        f"error on real recordings of the same sentences plus {_TTS_MARGIN:g} points is the target."
    )
    return page.table(header, rows, numbers={1, 2, 4, 5}) + page.note(remark)


def _line(one: Score) -> tuple[str, ...]:
    measure = f"{one.measure}, {one.remark}" if one.remark else one.measure
    verdict = ("✓ met" if one.met else "✗ not met") + (", within chance" if one.close else "")
    return (
        _named(one.task, measure),
        Html(f"<strong>{number(one.value)}</strong>"),
        f"{'≥' if one.least else '≤'} {_target(one.target)}",
        Html(f'<span class="verdict {"good" if one.met else "bad"}">{verdict}</span>'),
        f"{number(one.low)} to {number(one.high)}",
        f"{one.count:,}",
    )


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
