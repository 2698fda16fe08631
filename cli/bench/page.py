"""report.html: one file without scripts or anything from elsewhere; all text is escaped."""

from __future__ import annotations

from html import escape
from typing import Any

from cli.bench.markdown import Section, sections

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8884; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #8888; }
td:first-child { font-weight: 600; white-space: nowrap; }
summary { cursor: pointer; font-weight: 600; margin: .4rem 0; }
"""


def as_page(results: dict[str, Any]) -> str:
    """The whole report as one HTML document."""
    title = escape(results["plan"]["name"])
    body = "\n".join(map(_section, sections(results)))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def _section(section: Section) -> str:
    inside = "".join(f"<p>{escape(text)}</p>" for text in section.text) + _table(section.table)
    if section.title.startswith("Checklist"):  # long, and the same for most arms
        return f"<details><summary>{escape(section.title)}</summary>{inside}</details>"
    return f"<section><h2>{escape(section.title)}</h2>{inside}</section>"


def _table(rows: list[list[str]]) -> str:
    if not rows:
        return ""
    head, *body = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows)]
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _tagged(rows: list[list[str]]) -> list[tuple[str, list[str]]]:
    return [("th" if place == 0 else "td", row) for place, row in enumerate(rows)]
