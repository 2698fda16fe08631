"""A row of headline numbers, each in a box of its own."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.shaping.runs import Figure


def figures(row: Sequence[Figure]) -> None:
    """Side by side, as high as the highest."""
    for column, figure in zip(st.columns(len(row)), row, strict=True):
        column.metric(figure.label, figure.value, figure.delta, help=figure.help, border=True, height="stretch")
