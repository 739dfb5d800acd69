"""The report of a tokenizer: ``report.json`` for programs, ``report.html`` for people.

The page holds everything it shows, needs no network and no script, follows the reader's light or
dark theme and fits a phone.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitone import files
from unitone.report.page import Row, figure, grid, page, pairs, section, table
from unitone.tokenizers.quality import figures
from unitone.tokenizers.quality.agreement import LabelQuality
from unitone.tokenizers.quality.quality import QualityReport

JSON_NAME = "report.json"
HTML_NAME = "report.html"


def write_report(
    report: QualityReport, out_dir: Path, *, passport: Mapping[str, Any], run: Mapping[str, Any]
) -> None:
    """Write ``report.json`` and ``report.html`` into ``out_dir``.

    Args:
        report: what ``quality.measure`` has measured.
        out_dir: the tokenizer directory.
        passport: what the units are; shown as it is. ``name`` and ``layer`` of its ``encoder``
            make the title.
        run: how they were made; shown as it is. ``hours_per_second``, the hours of speech done in
            a second, is also among the headline numbers.
    """
    value = {"quality": report.to_json(), "passport": dict(passport), "run": dict(run)}
    files.write_text(out_dir / JSON_NAME, _compact(json.dumps(value, indent=2, ensure_ascii=False)))
    files.write_text(out_dir / HTML_NAME, render(report, passport=passport, run=run))


def render(report: QualityReport, *, passport: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Return the page; the same arguments give the same bytes."""
    sections = [
        section("At a glance", _headline(report, run)),
        section("Rates", _rates(report)),
        section("Clusters and runs", _clusters(report)),
    ]
    if report.phones is not None:
        sections.append(section("What the units know about phones", _phones(report, report.phones)))
    if report.characters is not None:
        sections.append(
            section("What the units know about the text", _characters(report, report.characters))
        )
    sections.append(section("Passport", pairs(passport)))
    if run:
        sections.append(section("Run", pairs(run)))
    title, subtitle = _titles(report, passport)
    return page(title, subtitle, sections)


def _titles(report: QualityReport, passport: Mapping[str, Any]) -> tuple[str, str]:
    maker = passport.get("encoder", {})
    encoder = f"{maker['name']}, " if "name" in maker else ""
    layer = f"layer {maker['layer']}, " if maker.get("layer") else ""
    hours = report.seconds / 3600
    spoken = f"{hours:,.1f} hours" if hours >= 1 else f"{report.seconds / 60:,.1f} minutes"
    return (
        f"{encoder}{layer}{report.k:,} units",
        f"Measured on {report.utterances:,} utterances, {spoken} of speech.",
    )


def _headline(report: QualityReport, run: Mapping[str, Any]) -> str:
    last = report.streams[-1]
    rows: list[Row] = [
        ("Clusters used", f"{report.used:,}", f"of {report.k:,}, {report.used / report.k:.1%}"),
        ("Unit perplexity", f"{report.perplexity:,.1f}", f"{report.k:,} at most"),
        ("Unit entropy", f"{report.entropy_bits:.2f}", "bits"),
    ]
    if report.inertia is not None:
        rows.append(("Inertia", f"{report.inertia:,.4g}", "squared distance per frame"))
    rows += [
        ("Mean run", f"{report.run_length.mean:.2f}", _run_duration(report)),
        (f"Rate, {last.name}", f"{last.tokens_per_second:.1f}", "per second"),
        (f"Bitrate, {last.name}", f"{last.bits_per_second:,.0f}", "bits per second"),
    ]
    if report.phones is not None:
        rows.append(("PNMI, phones", f"{report.phones.pnmi:.3f}", "0 to 1"))
        rows.append(("Phone purity", f"{report.phones.label_purity:.3f}", "0 to 1"))
    if report.characters is not None:
        chance = report.characters_by_chance
        by_chance = f"; {chance.pnmi:.3f} by chance" if chance else ""
        rows.append(
            (
                "PNMI, characters spread evenly",
                f"{report.characters.pnmi:.3f}",
                f"0 to 1{by_chance}",
            )
        )
    if "hours_per_second" in run:
        speed = float(run["hours_per_second"])
        rows.append(("Speed", f"{speed:.3g}", "hours of speech per second"))
    return table(("Measure", "Value", ""), rows, numbers={1})


def _run_duration(report: QualityReport) -> str:
    return f"frames, {report.run_length.mean / report.frame_rate * 1000:.0f} ms"


def _rates(report: QualityReport) -> str:
    rows = [
        (
            stream.name.capitalize(),
            f"{stream.vocabulary:,}",
            f"{stream.tokens_per_second:.2f}",
            f"{stream.bits_per_second:,.1f}",
        )
        for stream in report.streams
    ]
    header = ("Stream", "Vocabulary", "Tokens/s", "Bits/s")
    note = (
        "Bits per second are tokens per second times log2 of the vocabulary. Durations are not "
        "counted after deduplication."
    )
    return (
        table(header, rows, numbers={1, 2, 3})
        + f'<p class="note">{note}</p>'
        + grid(
            figure(figures.bitrates(report), "Cost of each stream."),
            figure(
                figures.units_per_second(report),
                "Deduplicated units per second of each utterance.",
            ),
        )
    )


def _clusters(report: QualityReport) -> str:
    unused = report.k - report.used
    most = len(report.run_length.counts)
    longer = f"; runs of {most} and more share a bar" if report.run_length.counts[-1] else ""
    return grid(
        figure(
            figures.cluster_usage(report),
            f"Share of frames of each cluster; {unused:,} of {report.k:,} are never used.",
        ),
        figure(
            figures.run_lengths(report),
            f"How many frames a unit lasts before another follows{longer}.",
        ),
    )


def _phones(report: QualityReport, quality: LabelQuality) -> str:
    measures = table(
        ("Measure", "Value", ""),
        [
            ("PNMI", f"{quality.pnmi:.4f}", "I(phone; unit) / H(phone)"),
            ("Phone purity", f"{quality.label_purity:.4f}", "frames whose phone leads their unit"),
            (
                "Cluster purity",
                f"{quality.cluster_purity:.4f}",
                "frames whose unit leads their phone",
            ),
            ("H(phone)", f"{quality.label_entropy:.3f}", "nats"),
            ("H(unit)", f"{quality.unit_entropy:.3f}", "nats"),
            (
                "Frames labeled",
                f"{quality.frames:,}",
                f"of {report.frames:,}, {quality.frames / report.frames:.1%}",
            ),
        ],
        numbers={1},
    )
    heat = figure(
        figures.phone_heat_map(report),
        "Each column is a unit, each row a phone; the stronger the color, the larger the phone's "
        "share of the unit's frames. A clean diagonal means units that stand for one phone each.",
        wide=True,
    )
    rows = [
        (
            top["phone"],
            f"{top['share']:.1%}",
            f"{top['found']:.1%}",
            ", ".join(
                f"{unit} ({share:.0%})"
                for unit, share in zip(top["units"], top["shares"], strict=True)
            ),
        )
        for top in report.top_units()
    ]
    each = table(
        ("Phone", "Of all frames", "In its own units", "Units that hold most of it"),
        rows,
        numbers={1, 2},
    )
    return f"{measures}{heat}<details><summary>Units of each phone</summary>{each}</details>"


def _characters(report: QualityReport, quality: LabelQuality) -> str:
    chance = report.characters_by_chance

    def row(name: str, field: str) -> Row:
        by_chance = f"{getattr(chance, field):.4f}" if chance else "–"
        return (name, f"{getattr(quality, field):.4f}", by_chance)

    values = table(
        ("Measure", "Value", "By chance"),
        [
            row("PNMI", "pnmi"),
            row("Character purity", "label_purity"),
            row("Cluster purity", "cluster_purity"),
        ],
        numbers={1, 2},
    )
    note = (
        "An approximation, for corpora without alignments: the letters of a transcript are spread "
        "evenly over its utterance. It ranks tokenizers on one corpus and is far below what true "
        "alignments give. By chance: the same with the transcripts shuffled between utterances; "
        "only the difference is knowledge."
    )
    return f'{values}<p class="note">{note}</p>'


def _compact(text: str) -> str:
    """Put lists of numbers on one line each."""
    numbers = re.compile(r"\[\s+(-?[\d.eE+-]+(?:,\s+-?[\d.eE+-]+)*)\s+\]")
    return numbers.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"
