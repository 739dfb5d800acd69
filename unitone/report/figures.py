"""Figures for report pages: SVG text for a web page, the same bytes for the same numbers.

Colors are placeholders that become CSS variables of `unitone.report.page`, so that one figure
serves the light and the dark theme; text stays text, in the page's font. The title of a figure is
read out by screen readers and makes its inner ids, so the titles of one page should differ.
"""

import contextlib
import html
import importlib
import io
import math
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {
    "#010101": "var(--ink)",
    "#010102": "var(--muted)",
    "#010103": "var(--line)",
    "#010104": "var(--series)",
    "#010105": "var(--accent)",
    "#010106": "var(--series-3)",
    "#010107": "var(--series-4)",
    "#010108": "var(--series-5)",
    "#010109": "var(--series-6)",
    "#01010a": "var(--series-7)",
    "#01010b": "var(--series-8)",
}
INK, MUTED, LINE, SERIES, ACCENT = list(_COLORS)[:5]
PALETTE = tuple(list(_COLORS)[3:])
"""Colors of the curves of one chart, in order; a ninth curve starts again, dashed."""
HEAT = (0.22, 0.50, 0.78)
"""RGB of a full cell in a heat map; emptier cells are more transparent, on either theme."""
SMALL, WIDE = (4.4, 2.5), (9.2, 5.2)
"""Inches. Small figures keep their letters readable on a phone; the wide one scrolls there."""
_PIXELS_PER_INCH = 100
_MARKED_UNTIL = 40
"""Points of a curve that are drawn as dots as well; more would run together."""

Curve = tuple[Sequence[int | float], Sequence[int | float]]
"""x and y of the points of one curve."""


def import_ahead() -> threading.Thread:
    """Begin to import matplotlib, a second's work, beside what comes before the first figure."""

    def load() -> None:
        with contextlib.suppress(ImportError):  # who draws will say so
            importlib.import_module("matplotlib.backends.backend_svg")

    started = threading.Thread(target=load, name="matplotlib", daemon=True)
    started.start()
    return started


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row of `intervals`."""

    name: str
    value: float
    low: float
    high: float
    written: str
    """The number as it stands at the right of its row."""


def curves(
    title: str,
    series: Mapping[str, Curve],
    *,
    xlabel: str,
    ylabel: str,
    log_y: bool = False,
    size: tuple[float, float] = SMALL,
) -> str:
    """Draw curves over a shared x, with a legend where there are several; gaps where y is NaN."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    def draw(axes: "Axes") -> None:
        for place, (name, (x, y)) in enumerate(series.items()):
            few = len(x) <= _MARKED_UNTIL
            axes.plot(
                x,
                y,
                label=name,
                color=PALETTE[place % len(PALETTE)],
                linestyle="-" if place < len(PALETTE) else "--",
                linewidth=1.6,
                marker="o" if few else "",
                markersize=3.0,
            )
        axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log_y else "linear")
        if log_y:
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.xaxis.set_major_formatter(plain)
        axes.yaxis.set_major_formatter(plain)
        axes.margins(x=0.02)
        if len(series) > 1:
            _legend(axes, count=len(series), columns=4)

    return svg(title, draw, size=size)


def lines_and_dots(
    title: str,
    lines: Mapping[str, Curve],
    dots: Mapping[str, Curve],
    *,
    xlabel: str,
    ylabel: str,
    size: tuple[float, float] = (WIDE[0] * 0.85, WIDE[1] * 0.75),
) -> str:
    """Draw curves of two kinds over a shared x, those of one name in one color, on a log scale."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    def draw(axes: "Axes") -> None:
        for place, name in enumerate(dict.fromkeys((*lines, *dots))):
            color = PALETTE[place % len(PALETTE)]
            x, y = lines.get(name, ((), ()))
            axes.plot(x, y, label=name, color=color, linewidth=1.5)
            x, y = dots.get(name, ((), ()))
            axes.plot(x, y, "o", color=color, markersize=4.5)
        axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
        axes.xaxis.set_major_formatter(plain)
        axes.yaxis.set_major_formatter(plain)
        axes.margins(x=0.02)
        _legend(axes, count=len({*lines, *dots}), columns=8)

    return svg(title, draw, size=size)


def heat_map(
    title: str,
    values: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    written: Sequence[Sequence[str]],
    xlabel: str,
    ylabel: str,
) -> str:
    """Draw ``values`` from 0 to 1 as the depth of cells, with ``written`` in each of them."""
    image = np.empty((*values.shape, 4))
    image[..., :3] = HEAT
    image[..., 3] = 0.85 * np.sqrt(np.clip(values, 0, 1))  # so that a hundredth is still seen
    side = max(0.34, min(0.8, 7.0 / max(len(columns), 1)))
    size = (2.0 + side * len(columns), 0.9 + 0.75 * side * len(rows))
    letters = 9.0 if len(columns) <= 20 else 6.5

    def draw(axes: "Axes") -> None:
        # cells, not an image: they stay sharp at every size
        axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), xlabel=xlabel, ylabel=ylabel)
        places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
        for row, column in places:
            axes.add_patch(_cell(column, row, color=tuple(image[row, column])))
            axes.text(
                column + 0.5,
                row + 0.5,
                written[row][column],
                ha="center",
                va="center",
                fontsize=letters,
                color=INK if values[row, column] else MUTED,
            )
        turned = 45 if max(map(len, columns), default=0) * 0.09 > side else 0
        axes.set_xticks(np.arange(len(columns)) + 0.5, list(columns), rotation=turned)
        axes.set_yticks(np.arange(len(rows)) + 0.5, list(rows))
        axes.tick_params(length=0, labelcolor=INK, labelsize=letters)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return svg(title, draw, size=size)


def _legend(axes: "Axes", *, count: int, columns: int) -> None:
    axes.legend(
        frameon=False,
        labelcolor=INK,
        ncols=min(columns, count),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        handlelength=1.4,
        columnspacing=1.4,
    )


def _cell(x: int, y: int, *, color: tuple[float, ...]) -> Any:
    from matplotlib.patches import Rectangle

    gap = 0.02
    return Rectangle((x + gap, y + gap), 1 - 2 * gap, 1 - 2 * gap, facecolor=color, linewidth=0)


def intervals(
    title: str,
    rows: Sequence[Measured],
    *,
    xlabel: str,
    reference: float | None = None,
    size: tuple[float, float] | None = None,
) -> str:
    """Draw a value and its interval in every row; ``reference`` is a dashed vertical line."""

    def draw(axes: "Axes") -> None:
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=1, dashes=(4, 3))
        for place, row in enumerate(rows):
            axes.plot([row.low, row.high], [place, place], color=SERIES, linewidth=2.2)
            axes.plot([row.value], [place], "o", color=SERIES, markersize=6)
            axes.annotate(
                row.written,
                (1, place),
                xytext=(6, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                color=INK,
            )
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.set_major_formatter(plain)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)

    return svg(title, draw, size=size or (SMALL[0] * 1.5, 0.75 + 0.3 * len(rows)))


def plain(value: float, _: Any) -> str:
    """Spell the number of a tick without an exponent."""
    return f"{value:,.12g}" if math.isfinite(value) else ""


def svg(title: str, draw: Callable[["Axes"], None], *, size: tuple[float, float] = SMALL) -> str:
    """Return what ``draw`` puts on a pair of axes as SVG text for a page.

    Args:
        title: what a screen reader says.
        draw: uses the colors of this module, so that the figure follows the page's theme.
        size: width and height in inches; 100 pixels of the page each.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,  # ids differ between figures and never between runs
        "font.size": 9.0,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "ytick.minor.size": 0.0,
    }
    file = io.StringIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Letters that matplotlib's own font has not are only measured with it, not drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return _for_the_page(file.getvalue(), title=title, size=size)


def _for_the_page(svg: str, *, title: str, size: tuple[float, float]) -> str:
    """Strip what only a file of its own needs, and hand fonts and colors to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", svg)
    svg = re.sub(
        r"<g id=\"[^\"]*\"", "<g", svg
    )  # alike in every figure, and nothing refers to them
    width = round(size[0] * _PIXELS_PER_INCH)
    view = re.search(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", svg)
    assert view is not None
    head = (
        f'<svg {view[1]} style="max-width: {width}px" role="img" aria-label="{html.escape(title)}"'
        ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    svg = svg[: view.start()] + head + svg[view.end() :]
    for placeholder, variable in _COLORS.items():
        svg = svg.replace(placeholder, variable)
    return svg.strip()
