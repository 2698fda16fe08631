"""Which number colours a strip: one choice for all pages, kept in the URL."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.components import selection
from dashboard.shaping import fields
from dashboard.shaping.text import escape_markdown


def color_pills(
    offered: dict[str, fields.Field],
    *,
    key: str,
    default: fields.Field = fields.LOG_RATIO,
    choose: Callable[..., None] = selection.choose,
) -> fields.Field:
    """The chosen field; ``default`` where the URL names none that is offered. ``choose`` writes a choice to the URL."""
    field = offered.get(selection.text("color") or "") or offered.get(default.key) or next(iter(offered.values()))
    st.session_state[key] = field.key
    st.pills(
        "Colour",
        list(offered),
        format_func=lambda one: escape_markdown(offered[one].label),
        key=key,
        required=True,
        wrap=True,  # a run may offer fifteen
        on_change=lambda: choose(color=st.session_state[key]),
    )
    return field
