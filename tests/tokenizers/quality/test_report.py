import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitone.tokenizers.quality.quality import QualityReport, UtteranceUnits, measure
from unitone.tokenizers.quality.report import render, write_report

PASSPORT = {
    "encoder": {"name": "hubert-base", "layer": 9, "weight_hash": "ab" * 32},
    "kmeans": {"k": 8},
    "deduplicate": True,
    "unit_pieces": None,
}
RUN = {"hours_per_second": 0.25, "history": [1 / 3] * 20, "command": "build --out <here> & there"}
VOID = {"meta", "br", "path", "use", "image"}


def report(*, labels: bool = True, text: bool = True, subwords: bool = True) -> QualityReport:
    rng = np.random.default_rng(0)
    utterances = []
    for number in range(6):
        units = np.repeat(rng.integers(0, 7, size=20), rng.integers(1, 5, size=20))
        spans = [("日", 0.0, 0.3), ("AH0", 0.3, 0.5), ("<x>", 0.5, 0.6)]
        utterances.append(
            UtteranceUnits(
                id=str(number),
                units=units,
                num_samples=320 * units.size,
                labels=tuple(spans) if labels else None,
                text="some words" if text else None,
                subwords=9 if subwords else None,
            )
        )
    return measure(
        utterances,
        k=8,
        frame_rate=50.0,
        inertia=1.25 if subwords else None,
        num_subwords=20 if subwords else None,
    )


class Balance(HTMLParser):
    """Collects the tags left open, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._collect(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._collect(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _collect(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "xlink:href"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def page() -> str:
    return render(report(), passport=PASSPORT, run=RUN)


def test_the_page_is_well_formed_and_loads_nothing(page: str) -> None:
    parser = Balance()
    parser.feed(page)

    assert parser.open == []
    assert all(address.startswith(("#", "data:image/png")) for address in parser.addresses)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(http" not in page


def test_what_figures_look_up_by_id_is_there_once(page: str) -> None:
    parser = Balance()
    parser.feed(page)
    used = [address[1:] for address in parser.addresses if address.startswith("#")]
    used += re.findall(r"url\(#([^)]+)\)", page)
    assert used
    assert all(parser.ids.count(name) == 1 for name in used)


def test_the_same_numbers_give_the_same_bytes(page: str) -> None:
    assert render(report(), passport=PASSPORT, run=RUN) == page
    assert not re.search(r"20\d\d-\d\d-\d\d", page)


def test_colors_follow_the_theme(page: str) -> None:
    assert "#0101" not in page  # no placeholder is left
    assert "var(--series)" in page
    assert "prefers-color-scheme: dark" in page


def test_foreign_text_is_escaped(page: str) -> None:
    assert "build --out &lt;here&gt; &amp; there" in page
    assert "<here>" not in page
    assert "&lt;x&gt;" in page


def test_passport_and_run_are_shown_readably(page: str) -> None:
    for key, value in (
        ("encoder: weight hash", "ab" * 32),
        ("deduplicate", "yes"),
        ("unit pieces", "none"),
        ("history", "0.333333, 0.333333, 0.333333, …, 0.333333, 0.333333"),
    ):
        assert f"<tr><th>{key}</th><td><code>{value}</code></td></tr>" in page


def test_the_headline_carries_the_numbers(page: str) -> None:
    measured = report()
    assert measured.phones is not None
    assert "hubert-base, layer 9, 8 units" in page
    assert f"{measured.phones.pnmi:.3f}" in page
    assert f"{measured.streams[-1].bits_per_second:,.0f}" in page
    assert "hours of speech per second" in page
    assert page.count("<svg ") == 5


def test_the_approximation_is_called_one_and_stands_beside_chance(page: str) -> None:
    assert "An approximation, for corpora without alignments" in page
    assert "By chance" in page


def test_sections_without_data_are_left_out() -> None:
    bare = render(report(labels=False, text=False, subwords=False), passport={}, run={})

    assert "about phones" not in bare
    assert "about the text" not in bare
    assert "Inertia" not in bare
    assert bare.count("<svg ") == 4
    assert "<title>8 units</title>" in bare


def test_the_json_holds_quality_passport_and_run(tmp_path: Path) -> None:
    write_report(report(), tmp_path, passport=PASSPORT, run=RUN)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    value: dict[str, Any] = json.loads(text)

    assert value["passport"] == PASSPORT
    assert value["run"] == RUN
    assert value["quality"] == report().to_json()
    assert re.search(r'"cluster_frames": \[\d+(, \d+)+\]', text)  # one line, not one a cluster
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
