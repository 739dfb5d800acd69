"""How the tour's model learnt: curves by task, and what the time went into."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitone.errors import UnitoneError
from unitone.recipes.tour.files import Row, TourFiles
from unitone.recipes.tour.stages import NAR
from unitone.report import figures, page

_RUNS = {
    "lm": "language model",
    NAR: "non-autoregressive model",
    "decoder": "unit decoder",
    "judge": "ASR judge",
}


def curves(tour: TourFiles, run: str = "lm") -> str:
    """Return the loss of every task and what validation saw, in the folder ``run``."""
    records = tour.metrics(run)
    training = [record for record in records if "parts" in record]
    validation = [record for record in records if "validation" in record]
    losses = {
        name: _points(training, "parts", name)
        for name in _names(training, "parts")
        if name != "left_out"  # a share, of texts that are longer than their speech
    }
    checked = {
        name.removesuffix("/loss"): _points(validation, "validation", name)
        for name in _names(validation, "validation")
        if name.endswith("/loss")
    }
    whose = "" if run == "lm" else f", {_RUNS[run]}"
    together = figures.lines_and_dots(
        f"Loss by task{whose}",
        losses,
        checked,
        xlabel="step",
        ylabel="nats per token",
    )
    dots = (
        "dots: the held-out validation split" if checked else "there was no validation of the loss"
    )
    drawn = page.figure(
        together,
        f"Lines: training, the mean since the point before; {dots}. The tasks that write units "
        "end higher: many ways of saying a sentence are right.",
        wide=True,
    )
    return drawn + page.grid(*_small(training, validation, whose))


def _small(training: Sequence[Row], validation: Sequence[Row], whose: str) -> list[str]:
    found = []
    minutes = [(record["seconds"] / 60, record["loss"]) for record in training]
    if minutes:
        x, y = zip(*minutes, strict=True)
        svg = figures.curves(
            f"Loss over time{whose}", {"loss": (x, y)}, xlabel="minutes", ylabel="nats per token"
        )
        found.append(page.figure(svg, "The loss of all tasks together, over the time it took."))
    decoded = {
        spelled: (x, [scale * value for value in y])
        for name in _names(validation, "validation")
        if (scaled := _measure(name)) is not None
        for spelled, scale in [scaled]
        for x, y in [_points(validation, "validation", name)]
    }
    if decoded:
        svg = figures.curves(
            f"Validation by decoding{whose}", decoded, xlabel="step", ylabel="%, BLEU points"
        )
        found.append(
            page.figure(
                svg,
                "What the model decodes of a few validation utterances: WER falls; BLEU, and the "
                "accuracies of lid and gid, rise. The test scores above are of many more.",
            )
        )
    return found


def _measure(name: str) -> tuple[str, float] | None:
    """Return the name and the scale of a metric of validation; None for a loss."""
    task, _, measure = name.partition("/")
    spelled = {"wer": (" WER", 100.0), "bleu": (" BLEU", 1.0), "accuracy": ("", 100.0)}
    if measure not in spelled:
        return None
    shown, scale = spelled[measure]
    return f"{task}{shown}", scale


def _names(records: Sequence[Row], group: str) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record[group]))


def _points(records: Sequence[Row], group: str, name: str) -> figures.Curve:
    """Return steps and values; 0 as a mean loss says that the task did not come up."""
    pairs = [(record["step"], record[group].get(name, math.nan)) for record in records]
    gaps = group == "parts"
    return (
        [step for step, _ in pairs],
        [math.nan if gaps and value == 0 else value for _, value in pairs],
    )


def speed(tour: TourFiles) -> str:
    """Return the size of the model and what the time went into."""
    records = tour.metrics("lm")
    windows = [record for record in records if "items_per_second" in record]
    model, config = tour.model, tour.json("lm", "config.json")
    shape = model.model.config
    facts: dict[str, str] = {
        "parameters": f"{model.model.num_parameters:,}",
        "vocabulary": ", ".join(
            f"{block.size:,} {block.name}" for block in model.vocabulary if block.size
        ),
        "context": f"{shape.context:,} tokens",
        "steps": f"{max(record['step'] for record in records):,}",
        "learnt tokens per second": _middle([one["items_per_second"] for one in windows]),
        "padding": _share([one["padding"] for one in windows if "padding" in one]),
        "precision": str(config["train"]["precision"]),
        "optimizer": str(config["train"]["optimizer"]),
        "peak learning rate": f"{config['train']['lr']:g}",
    }
    remark = (
        "Learnt tokens are those the loss falls on; prompts are read besides. Speed is the median "
        "over the windows between two records of the log, with the middle half of them in brackets."
    )
    return page.row(page.pairs(facts), _budget(tour)) + page.note(remark)


def _budget(tour: TourFiles) -> str:
    """Return the table of training times, and their sum."""
    rows, total, whole = [], 0.0, True
    for run, name in _RUNS.items():
        try:
            spent = max(record.get("seconds", 0.0) for record in tour.metrics(run))
            budget = tour.json(run, "config.json").get("train", {}).get("max_seconds")
        except UnitoneError:
            rows.append((f"Training the {name}", "not there", ""))
            whole = False
        else:
            total += spent
            allowed = f"of {_minutes(budget)}" if budget else ""
            rows.append((f"Training the {name}", _minutes(spent), allowed))
    rows.append(("Together" if whole else "Together, without what is missing", _minutes(total), ""))
    return page.table(("What", "Wall time", "Budget"), rows, numbers={1, 2})


def _minutes(seconds: float) -> str:
    """Spell a time.

    >>> _minutes(75.4)
    '1 min 15 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _middle(values: Sequence[float]) -> str:
    """Spell the median and the middle half; a run may be shorter than a window of the log.

    >>> _middle([900.0, 1000.0, 1100.0]), _middle([])
    ('1,000 (950 to 1,050)', 'not recorded')
    """
    if not values:
        return "not recorded"
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"


def _share(values: Sequence[float]) -> str:
    return f"{float(np.mean(values)):.1%} of positions" if values else "not recorded"


def made_by(tour: TourFiles) -> str:
    """Return the commands, the versions and the commit."""
    blocks = [_commands(tour)]
    try:
        start = tour.json("lm", "run.json")["starts"][-1]
    except UnitoneError as error:
        blocks.append(page.note(f"No record of the training run: {error}."))
    else:
        facts: dict[str, Any] = {
            "trained": start["time"],
            "by": _typed(start["command"]),
            "commit": start["commit"] or "not from a checkout",
            "threads": start["threads"],
            "processes": start["processes"],
            **_versions(tour, start["versions"]),
        }
        blocks += ["<h3>The training run</h3>", page.pairs(facts)]
        blocks.append(
            page.details("All options of the training", page.pairs(tour.json("lm", "config.json")))
        )
    return "".join(blocks)


def _typed(argv: Sequence[str]) -> str:
    """Return a command as it is typed in a checkout.

    >>> _typed(["unitone/lm/train.py", "--out", "my run"])
    "python -m lm.train --out 'my run'"
    """
    program = Path(argv[0])
    name = program.name
    if program.suffix == ".py":
        name = f"python -m {program.parent.name}.{program.stem}"
    return f"{name} {shlex.join(argv[1:])}".rstrip()


def _commands(tour: TourFiles) -> str:
    """List the commands, as the tour wrote them down, else as far as the runs tell."""
    try:
        steps = tour.json("tour.json")["steps"]
    except UnitoneError:
        return page.note("make tour makes all of this again, and takes up what is not finished.")
    rows = [(page.Html(f"<code>{page.escaped(one['command'])}</code>"), one) for one in steps]
    header = ("Command", "Time")
    return page.table(
        header, [(typed, _minutes(one["seconds"])) for typed, one in rows], numbers={1}
    )


def _versions(tour: TourFiles, versions: Mapping[str, str]) -> dict[str, str]:
    try:
        sound = tour.json("corpus", "corpus.json")["versions"]
    except UnitoneError:
        sound = {}
    return {**versions, **sound}
