"""The building blocks of report pages and their figures."""

import math
import subprocess
import sys

import numpy as np

from unitone.report import figures, page
from unitone.report.page import Html


def test_text_is_escaped_and_html_is_not() -> None:
    shown = page.table(("<a>",), [("x & y",), (Html("<b>z</b>"),)], numbers=set())
    assert "<th>&lt;a&gt;</th>" in shown
    assert "<td>x &amp; y</td>" in shown
    assert "<td><b>z</b></td>" in shown


def test_a_player_holds_its_sound() -> None:
    assert 'src="data:audio/wav;base64,UklGRg=="' in page.player(b"RIFF", label='a "b"')
    assert 'aria-label="a &quot;b&quot;"' in page.player(b"RIFF", label='a "b"')


def test_tiles_notes_and_details_escape() -> None:
    for block in (page.tiles(("<x>", "1", "")), page.note("<x>"), page.details("<x>", "")):
        assert "&lt;x&gt;" in block


def test_curves_have_a_legend_where_there_are_several() -> None:
    one = {"train": ([0, 1, 2], [3.0, math.nan, 1.0])}
    drawn = figures.curves("Loss", one, xlabel="step", ylabel="loss")
    assert ">train<" not in drawn
    assert ">step<" in drawn
    both = figures.curves(
        "Loss", {**one, "valid": ([0, 2], [3.0, 2.0])}, xlabel="step", ylabel="loss", log_y=True
    )
    assert ">train<" in both
    assert ">valid<" in both
    assert "var(--series)" in both
    assert "var(--accent)" in both


def test_more_curves_than_colors() -> None:
    many = {f"c{n}": ([0, 1], [n, n + 1.0]) for n in range(len(figures.PALETTE) + 2)}
    drawn = figures.curves("Many", many, xlabel="x", ylabel="y")
    assert "#0101" not in drawn
    assert "var(--series-8)" in drawn


def test_a_heat_map_writes_its_cells_and_labels() -> None:
    drawn = figures.heat_map(
        "Confusions <de>",
        np.array([[1.0, 0.0], [0.25, 0.75]]),
        rows=["de", "<en>"],
        columns=["de", "a rather long name"],
        written=[["9", "·"], ["1", "3"]],
        xlabel="taken for",
        ylabel="is",
    )
    assert 'aria-label="Confusions &lt;de&gt;"' in drawn
    assert "&lt;en&gt;" in drawn
    assert "a rather long name" in drawn


def test_intervals_write_their_numbers() -> None:
    rows = [figures.Measured(name="de", value=2.0, low=1.0, high=3.0, written="2.0 %")]
    drawn = figures.intervals("WER", rows, xlabel="WER %", reference=2.5)
    assert ">2.0 %<" in drawn
    assert ">de<" in drawn


def test_the_same_numbers_give_the_same_bytes() -> None:
    one, two = (
        figures.curves("Loss", {"a": ([0, 1], [1.0, 0.5])}, xlabel="x", ylabel="y")
        for _ in range(2)
    )
    assert one == two


def test_matplotlib_can_be_imported_beside_other_work() -> None:
    code = (
        "import sys; from unitone.report import figures; assert 'matplotlib' not in sys.modules\n"
        "figures.import_ahead().join(); assert 'matplotlib.backends.backend_svg' in sys.modules\n"
        "assert '<svg' in figures.curves('a', {'b': ([1, 2], [1, 2])}, xlabel='x', ylabel='y')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
