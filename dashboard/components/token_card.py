"""Everything about one token below a strip: numbers, both models' favourites, route, realised change."""

from __future__ import annotations

import streamlit as st

from api.schemas import Job, Token
from dashboard.shaping import token_detail
from dashboard.shaping.text import escape_markdown, visible


def token_card(token: Token, job: Job, *, key: str = "", updated: bool = True) -> None:
    """The selected token. ``key`` sets its tables apart from those of other pages; ``updated``: an update was made, so
    that something may have moved.
    """
    st.subheader(f"Token {token.pos}", anchor=False)
    st.text(f"{visible(token.text)}   (id {token.id})   {token_detail.verdict(token)}")
    _numbers(token_detail.chain(token))
    _numbers(token_detail.parts(token))
    if token_detail.is_direct(job):
        st.caption(
            "This recipe takes the direct route: the teacher's whole distribution pulls at the student's, scaled by "
            "the gate. No coefficient rests on the sampled token; read the two columns below."
        )
    compared = token_detail.compared(token, job)
    for who, column in zip(("student", "teacher"), st.columns(2), strict=True):
        with column:
            _favourites(token, who, compared, key)
    if compared is not None:
        st.caption(f"The method's support compares {len(compared.ids)} tokens here; what it left out says so.")
    left, right = st.columns(2)
    with left:
        _route(token, key)
    if updated:
        with right:
            _moved(token, key)


def _numbers(links: list[token_detail.Link]) -> None:
    """A row of numbers, each with its meaning; it wraps where the page is narrow."""
    with st.container(horizontal=True, gap="small"):
        for link in links:
            st.metric(escape_markdown(link.label), link.value, help=escape_markdown(link.meaning), border=True)


def _favourites(token: Token, who: str, compared: token_detail.Compared | None, key: str) -> None:
    """One model's most probable tokens, with the other model's opinion of them."""
    title = f"The {who}'s favourites"
    st.markdown(f"**{title}**")
    st.dataframe(
        token_detail.top_table(token, who, compared),
        hide_index=True,
        key=f"{key}top_{who}",
        alt=f"{title} at the selected token",
        column_config={
            "token": st.column_config.TextColumn("token"),
            "student": st.column_config.ProgressColumn("student p", min_value=0.0, max_value=1.0, format="percent"),
            "teacher": st.column_config.ProgressColumn("teacher p", min_value=0.0, max_value=1.0, format="percent"),
            "force": st.column_config.NumberColumn(
                "force",
                format="%+.4f",
                help="What the plan pushes this token's logit with: its share of a - (sum a) π.",
            ),
        },
    )


def _route(token: Token, key: str) -> None:
    """Where the plan sends what the token gives up."""
    route = token_detail.route_table(token)
    st.markdown("**Planned route** :gray[where the plan sends this token's mass]")
    if route is None:
        st.caption("No route: this recipe leaves the destination to the softmax, or this token is not suppressed.")
    else:
        st.dataframe(
            route,
            hide_index=True,
            key=f"{key}route",
            alt="Planned route of the selected token",
            column_config={
                "token": st.column_config.TextColumn("destination"),
                "weight": st.column_config.NumberColumn("sent", format="%.3f"),
                "plain": st.column_config.NumberColumn(
                    "softmax alone",
                    format="%.3f",
                    help="What the same coefficient would push this destination with if nothing were sent: "
                    "in proportion to what the student already gives it.",
                ),
            },
        )


def _moved(token: Token, key: str) -> None:
    """Predicted and realised change."""
    probe = token_detail.probe_table(token)
    st.markdown("**Change of probability** :gray[predicted by the plan, realised after the update]")
    if probe is None:
        st.caption("This state was not probed. Probed states carry both numbers for the tokens that moved most.")
    else:
        st.dataframe(
            probe,
            hide_index=True,
            key=f"{key}probe",
            alt="Predicted and realised change of probability at the selected token",
            column_config={
                "predicted": st.column_config.NumberColumn(format="%+.5f"),
                "realised": st.column_config.NumberColumn(format="%+.5f"),
            },
        )
