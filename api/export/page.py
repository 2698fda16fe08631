"""The HTML file: a template, one style sheet, one script, and the data as JSON that nothing can end early.

The policy allows exactly this style sheet and this script, by their hashes, and no request at all; the data is no
script. It is in the page itself, so that it holds for a file opened from disk.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

_SCRIPTS = ("dom", "charts", "heatmaps", "tokens", "page")  # in this order, one script


def render(data: dict[str, Any]) -> bytes:
    """The file's content."""
    # In a script element only "<" could start a tag; ASCII keeps lone surrogates and line separators escaped.
    embedded = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = _read("page.html")
    for name, text in (("POLICY", policy()), ("STYLE", _style()), ("SCRIPT", _script()), ("DATA", embedded)):
        page = page.replace(f"@@{name}@@", text, 1)
    return page.encode()


@cache
def policy() -> str:
    """The Content-Security-Policy of the page."""
    return (
        f"default-src 'none'; style-src '{_hash(_style())}'; script-src '{_hash(_script())}'; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _style() -> str:
    return _read("style.css")


@cache
def _script() -> str:
    return "".join(_read("script", f"{name}.js") for name in _SCRIPTS)


def _read(*path: str) -> str:
    return resources.files("api.export").joinpath(*path).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
