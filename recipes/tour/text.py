"""What the tour's model writes: aligned recognition, and translations beside their references."""

import html

from unitone.errors import UnitoneError
from unitone.eval import examples
from unitone.eval.metrics.edits import align
from unitone.eval.scoring import number
from unitone.recipes.tour.files import Row, TourFiles
from unitone.recipes.tour.scores import NAMES
from unitone.report import page
from unitone.report.page import Html

_WORST, _TYPICAL = 4, 4


def recognition(tour: TourFiles) -> str:
    """Return the worst transcripts and some from the middle, aligned with their references."""
    rows = sorted(tour.lines("scores", "asr", "utterances.jsonl"), key=_rate, reverse=True)
    right = sum(not _errors(row) for row in rows)
    wrong = [row for row in rows if _errors(row)]
    middle = max((len(rows) - _TYPICAL) // 2, 0)
    typical = [row for row in rows[middle : middle + _TYPICAL] if row not in wrong[:_WORST]]
    remark = page.note(
        f"{right:,} of {len(rows):,} test utterances are recognized without an error. Reference "
        "above, what the model wrote below."
    )
    blocks = [remark, examples.legend()]
    if wrong:
        blocks += ["<h3>The worst</h3>", *(_aligned(tour, row) for row in wrong[:_WORST])]
    if typical:
        blocks.append("<h3>From the middle of the ranking</h3>")
        blocks += [_aligned(tour, row) for row in typical]
    return "".join(blocks)


def _errors(row: Row) -> int:
    return int(row["substitutions"] + row["deletions"] + row["insertions"])


def _rate(row: Row) -> float:
    return _errors(row) / max(len(row["reference"].split()), 1)


def _aligned(tour: TourFiles, row: Row) -> str:
    words = row["reference"].split()
    known = tour.manifest.get(row["id"], {})
    remarks = [str(known[name]) for name in ("language", "speaker") if known.get(name)]
    remarks.append(f"{_errors(row)} errors in {len(words)} words")
    steps = align(words, row["hypothesis"].split())
    return examples.utterance(row["id"], remarks, examples.alignment(steps))


def translations(tour: TourFiles) -> str:
    """Return BLEU by direction, and the first test sentence of each direction and task."""
    blocks = [_directions(tour)]
    for task in ("st", "mt"):
        blocks.append(f"<h3>{NAMES[task]}</h3>")
        try:
            blocks.append(_examples(tour, task))
        except UnitoneError as error:
            blocks.append(page.note(f"Not shown: {error}."))
    return "".join(blocks)


def _directions(tour: TourFiles) -> str:
    """Return the table of directions; empty where the scores were not grouped."""
    found: dict[str, dict[str, str]] = {}
    for task in ("st", "mt"):
        try:
            groups = tour.json("scores", task, "bleu.json")["groups"].get("languages", {})
        except UnitoneError:
            continue
        for direction, score in groups.items():
            around = score["bleu_interval"]
            span = f" ({number(around['low'])} to {number(around['high'])})" if around else ""
            found.setdefault(direction, {})[task] = f"{number(score['bleu'])}{span}"
    if not found:
        return ""
    header = ("Direction", f"{NAMES['st']}, BLEU", f"{NAMES['mt']}, BLEU")
    rows = [
        (direction, each.get("st", "–"), each.get("mt", "–"))
        for direction, each in sorted(found.items())
    ]
    return page.table(header, rows, numbers={1, 2})


def _examples(tour: TourFiles, task: str) -> str:
    first: dict[tuple[str, str], Row] = {}
    for one in tour.hypotheses(task):
        language = str(one["reference"].get("language"))
        first.setdefault((language, str(one["to"])), one)
    rows = []
    for (language, to), one in sorted(first.items()):
        reference = one["reference"]["translation"][to]
        same = reference == one["text"]
        mark = '<span class="good">✓</span> ' if same else ""
        written = Html(mark + html.escape(one["text"] or "(nothing)"))
        rows.append((f"{language}\u00a0→\u00a0{to}", one["reference"]["text"], written, reference))
    source = "Said in the recording" if task == "st" else "Source"
    remark = "The first of each direction. ✓: the reference, word for word."
    header = ("", source, "The model's", "Reference")
    return page.table(header, rows, numbers=set()) + page.note(remark)
