"""ECharts with the page's theme."""

from __future__ import annotations

import streamlit as st


def theme() -> str:
    """``light`` or ``dark``. Right after a switch it can be one run late."""
    return "dark" if st.context.theme.type == "dark" else "light"
