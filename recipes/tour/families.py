"""Both model families on the same test sentences: scores side by side, seconds, sounds."""

from typing import Any

from unitone.corpus.audio import Clip
from unitone.errors import UnitoneError
from unitone.eval.scoring import number
from unitone.recipes.tour import scores, speech
from unitone.recipes.tour.files import TourFiles
from unitone.recipes.tour.scores import Score
from unitone.recipes.tour.stages import NAR, SCORED
from unitone.report import page
from unitone.report.page import Html

_SPOKEN = 3
"""Sentences to listen to."""


def section(tour: TourFiles) -> str:
    """Return the table and, for some sentences, a player of either family.

    Raises:
        CorpusError: the non-autoregressive model has not been scored.
    """
    one, other = ({_task(found): found for found in scores.scores(tour, m)} for m in ("", NAR))
    seconds = _seconds(tour)
    rows = [
        (
            scores.named(found),
            _value(one.get(task)),
            _value(found),
            *scores.verdict(found),
            _p_value(tour, task),
            seconds.get(task, ""),
        )
        for task, found in other.items()
        if isinstance(found, Score)
    ]
    if not rows:
        tour.json("scores", NAR, "asr", SCORED["asr"].file)  # says what is not there
    header = ("Task", "Decoder-only", "T2V2", "Its target", "Met", "p", "Seconds of either")
    table = page.table(header, rows, numbers={1, 2, 3, 5, 6})
    remark = (
        "The same sentences, with 95 % intervals; p is that of a paired test of the difference. "
        "The decoder-only model writes token after token, T2V2 all frames at once. Seconds are "
        "those of an utterance by itself as it is decoded by default, to text or to units, without "
        "the unit decoder; the scores of the decoder-only model are of a beam of 4 (recognition) "
        "and of the best of many candidates (synthesis), which take longer."
    )
    return table + page.note(remark) + _sounds(tour)


def _task(found: Score | tuple[str, str]) -> str:
    return found.task if isinstance(found, Score) else found[0]


def _value(found: Score | tuple[str, str] | None) -> Html:
    if not isinstance(found, Score):
        return Html("–")
    around = f"{number(found.low)} to {number(found.high)}"
    return Html(f"<strong>{number(found.value)}</strong><small>{around}</small>")


def _p_value(tour: TourFiles, task: str) -> str:
    found = tour.json("scores", NAR, task, SCORED[task].file)
    compared = (found.get("comparison") or {}).get(SCORED[task].key)
    return "" if compared is None else f"{compared['p_value']:.2g}"


def _seconds(tour: TourFiles) -> dict[str, Html]:
    """Return a cell a task; nothing where it wasn't timed."""
    try:
        found: dict[str, Any] = tour.json("scores", "seconds.json")["seconds"]
    except UnitoneError:
        return {}
    return {
        task: _spent([figures[task] for figures in found.values()])
        for task in next(iter(found.values()))
    }


def _spent(families: list[dict[str, Any]]) -> Html:
    means = " and ".join(f"{one['mean']:.3f}" for one in families)
    around = [one["interval"] or (one["mean"],) * 2 for one in families]
    spans = " and ".join(f"{low:.3f} to {high:.3f}" for low, high in around)
    return Html(f"{means}<small>{spans}</small>")


def _sounds(tour: TourFiles) -> str:
    theirs = {one["id"]: one for one in tour.hypotheses("tts")}
    shown = []
    for one in speech.first_of(tour.hypotheses(f"{NAR}/tts"), "language")[:_SPOKEN]:
        if one["id"] not in theirs:
            continue
        players = [
            speech.sound(
                name,
                Clip(path=speech.path_of(tour, task, made)),
                label=f"{one['id']}, synthesized by {name}",
            )
            for name, task, made in (
                ("Decoder-only", "tts", theirs[one["id"]]),
                ("T2V2", f"{NAR}/tts", one),
            )
        ]
        row = one["reference"]
        shown.append(
            speech.utterance(
                row["id"],
                [row.get("language", ""), row.get("speaker", "")],
                speech.text_of(row["text"]) + speech.side_by_side(players),
            )
        )
    return "".join(shown)
