"""The strip of coloured tokens: an inline component, so that the browser moves the selection without a round trip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.shaping.colors import palettes

_HERE = Path(__file__).parent
MOVES = ("sequence", "step", "play")
_COMPONENT = st.components.v2.component(
    "opd_token_strip",
    html='<div class="frame"><div class="strip" role="listbox" tabindex="0"></div><div class="card" hidden></div>'
    '<div class="legend"><span class="name"></span><span class="low"></span><div class="ramp"></div>'
    '<span class="high"></span></div><div class="legend bar" hidden><span class="name"></span><span class="low"></span>'
    '<div class="ramp"></div><span class="high"></span></div></div>\n',
    css=(_HERE / "token_strip.css").read_text(encoding="utf-8"),
    js=(_HERE / "token_strip.js").read_text(encoding="utf-8").replace("__PALETTES__", json.dumps(palettes())),
)


def token_strip(
    drawing: dict[str, Any],
    *,
    key: str,
    on_pick: Callable[[str, int], None],
    on_move: Callable[[str, str, int], None] | None = None,
) -> None:
    """Draw ``shaping.tokens.strip``'s result; ``on_pick(place, position)`` after a click or an arrow key.

    ``on_move(place, what, by)`` after a key that leaves the strip: ``what`` is sequence, step or play. ``place`` is the
    drawing's that the key was pressed on, which on a live run may be older than the one drawn last.
    """

    def picked() -> None:
        pick = st.session_state[key].picked
        if on_move is not None and isinstance(pick, dict) and pick.get("move") in MOVES and pick.get("by") in (-1, 1):
            on_move(str(pick.get("place")), pick["move"], pick["by"])
            return
        if isinstance(pick, dict) and isinstance(pick.get("place"), str) and isinstance(pick.get("pos"), int):
            on_pick(pick["place"], pick["pos"])

    _COMPONENT(data=drawing, key=key, on_picked_change=picked)
