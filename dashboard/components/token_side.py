"""One token of one of two sides: who wrote it, and both models' favourites there."""

from __future__ import annotations

import streamlit as st

from api.schemas import Token
from dashboard.shaping import token_detail
from dashboard.shaping.text import visible


def token_side(side: str, token: Token) -> None:
    """The token of the ``left`` or ``right`` side."""
    st.markdown(f"**{side.capitalize()}, token {token.pos}**")
    st.text(f"{visible(token.text)}   (id {token.id})   {token_detail.verdict(token)}")
    for who in ("student", "teacher"):
        st.dataframe(
            token_detail.top_table(token, who),
            hide_index=True,
            height=250,
            column_order=["token", "student", "teacher", ""],
            key=f"side_{side}_{who}",
            alt=f"The {who}'s favourites at the selected token, {side} run",
            column_config={
                "token": st.column_config.TextColumn(f"the {who}'s favourites"),
                "student": st.column_config.ProgressColumn("student p", min_value=0.0, max_value=1.0, format="percent"),
                "teacher": st.column_config.ProgressColumn("teacher p", min_value=0.0, max_value=1.0, format="percent"),
            },
        )
