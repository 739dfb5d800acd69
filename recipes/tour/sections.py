"""The sections of the tour's page, put together."""

from collections.abc import Callable
from pathlib import Path

from unitone import files
from unitone.errors import ConfigError, UnitoneError
from unitone.recipes.tour import all_at_once, attention, families, learning, scores, speech, text
from unitone.recipes.tour.files import TourFiles
from unitone.recipes.tour.report import NAME
from unitone.recipes.tour.stages import NAR
from unitone.report import page


def write(folder: Path) -> Path:
    """Write ``report.html`` into the tour's folder and return its path.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such directory; `make tour` makes it")
    out = folder / NAME
    files.write_text(out, render(TourFiles(folder)))
    return out


def render(tour: TourFiles) -> str:
    """Return the page; the same folder gives the same bytes."""
    found = list(scores.scores(tour))
    measured = [one for one in found if isinstance(one, scores.Score)]
    sections = [
        page.section("Scores", scores.headline(found)),
        _part("Two families on the same sentences", lambda: families.section(tour)),
        _part("Listen", lambda: speech.synthesis(tour)),
        _part("Speech continuation", lambda: speech.continuation(tour)),
        _part("What it recognizes", lambda: text.recognition(tour)),
        _part("Where it looks", lambda: attention.section(tour)),
        _part("How T2V2 does it", lambda: all_at_once.section(tour)),
        _part("What it translates", lambda: text.translations(tour)),
        _part("What it confuses", lambda: scores.confusions(tour)),
        _part("How it learnt", lambda: learning.curves(tour)),
        _part("How T2V2 learnt", lambda: learning.curves(tour, NAR)),
        _part("Size, speed and time", lambda: learning.speed(tour)),
        _part("The task table", lambda: scores.task_table(tour.model.table)),
        page.section("How it was made", learning.made_by(tour)),
    ]
    met = sum(one.met for one in measured)
    subtitle = f"{_what(tour)} {met} of {len(found)} targets met" + (
        f", {len(found) - len(measured)} not measured." if len(measured) < len(found) else "."
    )
    return page.page("One model that listens, speaks and translates", subtitle, sections)


def _part(title: str, make: Callable[[], str]) -> str:
    """Return a section; where a step has left nothing, a note that says so."""
    try:
        content = make()
    except UnitoneError as error:
        content = f'<p class="warning">Not shown: {page.escaped(str(error))}.</p>'
    return page.section(title, content)


def _what(tour: TourFiles) -> str:
    """Say in a sentence what the page is about, as far as it is known."""
    try:
        size = f" of {tour.model.model.num_parameters / 1e6:.1f} M parameters"
        tasks = f", {len(tour.model.table)} tasks"
    except UnitoneError:
        size = tasks = ""
    return f"A decoder-only model{size} over text and speech units{tasks}."
