"""The figures of the unit report."""

from typing import TYPE_CHECKING

import numpy as np

from unitone.report.figures import ACCENT, HEAT, INK, SERIES, WIDE, plain, svg
from unitone.tokenizers.quality.quality import Histogram, QualityReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PIXELATED_UNTIL = 450
"""Columns of a heat map that are drawn with sharp edges; more are narrower than two pixels."""


def cluster_usage(report: QualityReport) -> str:
    """Draw the share of frames of every used cluster, the fullest first."""
    shares = -np.sort(-np.array(report.usage, np.float64)) / report.frames
    shares = shares[shares > 0] * 100

    def draw(axes: "Axes") -> None:
        axes.axhline(100 / report.k, color=ACCENT, linewidth=1, dashes=(4, 3))
        axes.annotate(
            "if all were equal",
            (1, 100 / report.k),
            xytext=(-3, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color=ACCENT,
        )
        ranks = np.arange(1, shares.size + 1)
        axes.plot(ranks, shares, color=SERIES, linewidth=1.6, drawstyle="steps-mid")
        axes.set(yscale="log", xlim=(1, max(2, report.k)))
        axes.set(xlabel="cluster, fullest first", ylabel="share of frames, %")
        axes.yaxis.set_major_formatter(plain)

    return svg("Frames per cluster", draw)


def units_per_second(report: QualityReport) -> str:
    """Draw how many utterances have how many deduplicated units per second."""
    return _histogram_svg(
        "Deduplicated units per second",
        report.units_per_second,
        xlabel="deduplicated units per second",
        ylabel="utterances",
        mean="mean {:.1f} per second",
        shift=0.0,
    )


def run_lengths(report: QualityReport) -> str:
    """Draw how many runs last how many frames."""
    return _histogram_svg(
        "Run lengths",
        report.run_length,
        xlabel=f"frames of {1000 / report.frame_rate:g} ms in a run",
        ylabel="runs",
        mean="mean {:.2f} frames",
        shift=-0.5,  # the bar of a whole number stands around it
    )


def bitrates(report: QualityReport) -> str:
    """Draw the bits per second of every way to write the speech."""
    streams = report.streams[::-1]
    rates = [stream.bits_per_second for stream in streams]

    def draw(axes: "Axes") -> None:
        axes.barh([stream.name for stream in streams], rates, color=SERIES, height=0.56)
        for place, rate in enumerate(rates):
            axes.annotate(
                f"{rate:,.0f}",
                (rate, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=INK,
            )
        axes.set(xlabel="bits per second", xlim=(0, max(rates) * 1.18))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="y", visible=False)

    return svg("Bitrate", draw)


def phone_heat_map(report: QualityReport) -> str:
    """Draw which phones the frames of every unit belong to; units stand with their main phone."""
    table = report.phone_table
    rows = np.argsort(-table.sum(axis=1), kind="stable")
    used = table[rows][:, table.sum(axis=0) > 0]
    shares = used / used.sum(axis=0)
    order = np.lexsort((-shares.max(axis=0), shares.argmax(axis=0)))
    image = np.empty((*shares.shape, 4))
    image[..., :3] = HEAT
    image[..., 3] = np.sqrt(shares[:, order])  # so that a tenth is still seen

    def draw(axes: "Axes") -> None:
        axes.imshow(image, aspect="auto", interpolation="none")
        axes.set_yticks(range(len(rows)), [report.phone_symbols[row] for row in rows])
        axes.tick_params(axis="y", length=0, labelsize=min(9.0, 380 / len(rows)))
        axes.grid(visible=False)
        axes.set(xlabel="used units, grouped by their main phone", ylabel="phone, commonest first")

    image_svg = svg("Share of each phone in each unit", draw, size=WIDE)
    sharp = used.shape[1] <= _PIXELATED_UNTIL
    return image_svg.replace("<svg ", '<svg class="sharp" ', 1) if sharp else image_svg


def _histogram_svg(
    title: str, histogram: Histogram, *, xlabel: str, ylabel: str, mean: str, shift: float
) -> str:
    from matplotlib.ticker import MaxNLocator

    edges = np.array(histogram.edges) + shift
    filled = np.flatnonzero(histogram.counts)
    last = edges[min(len(edges) - 1, (filled[-1] if filled.size else 0) + 2)]

    def draw(axes: "Axes") -> None:
        widths = np.diff(edges)
        axes.bar(edges[:-1], histogram.counts, width=widths * 0.9, align="edge", color=SERIES)
        axes.axvline(histogram.mean, color=ACCENT, linewidth=1, dashes=(4, 3))
        axes.annotate(
            mean.format(histogram.mean),
            (histogram.mean, 1),
            xytext=(0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="left" if histogram.mean < (edges[0] + last) / 2 else "right",
            va="bottom",
            color=ACCENT,
        )
        axes.set(xlim=(edges[0], last), xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.yaxis.set_major_formatter(plain)
        axes.grid(axis="x", visible=False)

    return svg(title, draw)
