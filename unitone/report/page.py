"""The building blocks of a report page: tables, figures and the frame around them, as HTML text."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Sequence[str]

_LONG_LIST = 8


class Html(str):
    """Text that is HTML already; everywhere else text is escaped."""

    __slots__ = ()


def page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """Return the whole document; it loads nothing and follows the light or dark theme."""
    return _PAGE.format(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        style=_STYLE,
        sections="\n".join(sections),
    )


def pairs(values: Mapping[str, Any]) -> str:
    """Lay out a mapping, nested ones flattened, as a table of keys and values."""
    rows = [(key.replace("_", " "), value) for key, value in _flat(values)]
    cells = "".join(
        f"<tr><th>{html.escape(key)}</th><td><code>{html.escape(value)}</code></td></tr>"
        for key, value in rows
    )
    return f'<div class="scroll"><table class="pairs">{cells}</table></div>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}", _shown(value)


def _shown(value: Any) -> str:
    """Spell a value in a line: numbers to six figures, of a long list the ends."""
    if isinstance(value, list | tuple):
        ends = [*value[:3], "…", *value[-2:]] if len(value) > _LONG_LIST else value
        return ", ".join(map(_shown, ends)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)


def table(header: Row, rows: Iterable[Row], *, numbers: set[int]) -> str:
    """Lay out rows; the columns in ``numbers`` are flush right, with digits of one width.

    A cell is text, or `Html`.
    """

    def line(cells: Row, tag: str) -> str:
        kinds = (' class="number"' if place in numbers else "" for place in range(len(cells)))
        return "".join(
            f"<{tag}{kind}>{escaped(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{line(header, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def escaped(text: str) -> Html:
    """Return ``text`` for a page: as it is if it is `Html`, escaped otherwise."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def tiles(*values: tuple[str, str, str]) -> str:
    """Set the headline numbers side by side: what it is, the number, a note under it."""
    cells = "".join(
        f'<div class="tile"><span class="what">{escaped(what)}</span>'
        f"<strong>{escaped(number)}</strong><span>{escaped(note)}</span></div>"
        for what, number, note in values
    )
    return f'<div class="tiles">{cells}</div>'


def note(text: str) -> str:
    """Set a remark in small letters."""
    return f'<p class="note">{escaped(text)}</p>'


def details(summary: str, content: str) -> str:
    """Fold ``content`` away under a line that opens it."""
    return f"<details><summary>{escaped(summary)}</summary>{content}</details>"


def player(wav: bytes, *, label: str) -> Html:
    """Return a player with the bytes of a sound file (WAV) inside the page; loads on demand."""
    data = base64.b64encode(wav).decode("ascii")
    return Html(
        f'<audio controls preload="none" aria-label="{html.escape(label)}"'
        f' src="data:audio/wav;base64,{data}"></audio>'
    )


def section(title: str, content: str) -> str:
    """Put a heading over ``content``."""
    return f"<section><h2>{title}</h2>{content}</section>"


def grid(*figures: str) -> str:
    """Set figures side by side, one below the other on a phone."""
    return f'<div class="grid">{"".join(figures)}</div>'


def row(*blocks: str) -> str:
    """Set blocks side by side at their own width, as many as fit."""
    return f'<div class="row">{"".join(blocks)}</div>'


def figure(svg: str, caption: str, *, wide: bool = False) -> str:
    """Set a caption under a figure; a wide one scrolls on a phone."""
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure{kind}><div class="scroll">{svg}</div><figcaption>{caption}</figcaption></figure>'
    )


_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b2430; --muted: #5b6878; --line: #dde2e8;
  --series: #2f6fb0; --accent: #b4560f; --good: #1d7a4c; --bad: #b3261e;
  --series-3: #2b8a5b; --series-4: #8a4fb0; --series-5: #b03a5b; --series-6: #7a6a1d;
  --series-7: #1d8a96; --series-8: #6b7280;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --ink: #e4e9ef; --muted: #98a4b3; --line: #2b333d;
    --series: #6aa9e6; --accent: #e8a061; --good: #63c796; --bad: #f08a80;
    --series-3: #63c796; --series-4: #c79be6; --series-5: #ef8aa6; --series-6: #d3c26a;
    --series-7: #67cfda; --series-8: #a5adb8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 var(--sans);
}
h1 { font-size: 1.6rem; line-height: 1.25; font-weight: 650; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; font-weight: 650; margin: 2.75rem 0 .75rem; }
p { margin: .25rem 0; }
.note, figcaption, .subtitle { color: var(--muted); }
.note, figcaption { font-size: .875rem; max-width: 44rem; margin-top: .5rem; }
table { border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .375rem 1.5rem .375rem 0; vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-size: .8125rem; font-weight: 500; }
tr { border-bottom: 1px solid var(--line); }
.number { text-align: right; white-space: nowrap; }
td:last-child:not(.number) { color: var(--muted); }
.pairs th { color: var(--muted); font-weight: 400; white-space: nowrap; }
code { font: .8125rem ui-monospace, "SF Mono", Menlo, Consolas, monospace; color: var(--ink); }
.pairs code { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.grid { display: grid; gap: 1.5rem 2.5rem; margin-top: 1.25rem; }
.row { display: flex; flex-wrap: wrap; align-items: start; gap: 1.5rem 4rem; }
figure { margin: 0; min-width: 0; }
.wide { margin: 1.5rem 0; }
.wide svg { min-width: 40rem; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.sharp image { image-rendering: pixelated; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1.5rem; }
.tile {
  flex: 1 1 11rem; padding: .75rem 1rem;
  border: 1px solid var(--line); border-radius: .5rem;
}
.tile span { display: block; color: var(--muted); font-size: .8125rem; }
.tile strong {
  display: block; font-size: 1.75rem; line-height: 1.3; font-weight: 650;
  font-variant-numeric: tabular-nums;
}
audio { height: 2.25rem; width: 16rem; max-width: 100%; vertical-align: middle; }
h3 { font-size: .9375rem; font-weight: 600; margin: 1.5rem 0 .5rem; }
.good { color: var(--good); }
.bad { color: var(--bad); }
td small { display: block; color: var(--muted); }
.verdict { white-space: nowrap; }
.sounds { display: flex; flex-wrap: wrap; gap: .75rem 1.5rem; margin-top: .5rem; }
.sound { flex: 0 1 16rem; min-width: 0; }
.sound p { font-size: .875rem; margin: 0 0 .25rem; }
.sound p span { display: block; color: var(--muted); font-size: .8125rem; }
.sound audio { width: 100%; }
.alignment { display: flex; flex-wrap: wrap; gap: .25rem .375rem; margin: .25rem 0 0; }
.alignment > span {
  display: inline-grid; justify-items: center; line-height: 1.3; font-size: .875rem;
  padding: .0625rem .25rem; border-radius: .25rem; border-bottom: 2px solid transparent;
}
.alignment .sub {
  border-color: var(--accent);
  background: color-mix(in srgb, var(--accent) 12%, transparent);
}
.alignment .del {
  border-color: var(--bad);
  background: color-mix(in srgb, var(--bad) 12%, transparent);
}
.alignment .ins {
  border-color: var(--series);
  background: color-mix(in srgb, var(--series) 12%, transparent);
}
.alignment .hit i { color: var(--muted); }
.alignment .sub i { color: var(--accent); }
.alignment .del b { color: var(--bad); text-decoration: line-through; }
.alignment .ins i { color: var(--series); }
.alignment b { font-weight: 400; }
.alignment i { font-style: normal; }
.warning {
  border-left: 3px solid var(--accent); padding: .25rem 0 .25rem .75rem; margin-top: 1rem;
}
.utterance { border-bottom: 1px solid var(--line); padding: .75rem 0; }
.utterance > p { display: flex; gap: 1rem; color: var(--muted); font-size: .8125rem; }
.utterance > p strong { color: var(--ink); font-weight: 500; }
summary { cursor: pointer; color: var(--muted); margin-bottom: .5rem; }
@media (min-width: 52rem) { .grid { grid-template-columns: 1fr 1fr; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p class="subtitle">{subtitle}</p></header>
{sections}
</body>
</html>
"""
