"""The building blocks of a report page: tables, figures and the frame around them, as HTML text."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Sequence[str]

_LONG_LIST = 8


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
    """Lay out rows; the columns in ``numbers`` are flush right, with digits of one width."""

    def line(cells: Row, tag: str) -> str:
        kinds = (' class="number"' if place in numbers else "" for place in range(len(cells)))
        return "".join(
            f"<{tag}{kind}>{html.escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{line(header, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def section(title: str, content: str) -> str:
    """Put a heading over ``content``."""
    return f"<section><h2>{title}</h2>{content}</section>"


def grid(*figures: str) -> str:
    """Set figures side by side, one below the other on a phone."""
    return f'<div class="grid">{"".join(figures)}</div>'


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
  --series: #2f6fb0; --accent: #b4560f;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --ink: #e4e9ef; --muted: #98a4b3; --line: #2b333d;
    --series: #6aa9e6; --accent: #e8a061;
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
figure { margin: 0; min-width: 0; }
.wide { margin: 1.5rem 0; }
.wide svg { min-width: 40rem; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.sharp image { image-rendering: pixelated; }
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
