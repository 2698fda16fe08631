"""Panels that refresh themselves, and the one message when the API cannot be reached."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from api.schemas import Job
from dashboard import data
from dashboard.shaping.text import escape_markdown

TICK_S = 1.0
SLOW_TICK_S = 2.0
RETRY_S = 2.0


def panel(body: Callable[[], None], *, every: float | None) -> None:
    """Draw ``body`` now and again every so many seconds (None: once), without rerunning the page.

    A lost connection hands over to the page, which shows one message instead of one per panel.
    """

    def run() -> None:
        try:
            body()
        except data.Problem as problem:
            if problem.is_outage:
                data.forget()
                st.rerun()
            st.warning(escape_markdown(problem.detail), icon=":material/info:")

    st.fragment(run, run_every=every)()


def tick(job: Job, seconds: float = TICK_S) -> float | None:
    """The refresh interval of a panel about this job: none once it is over."""
    return None if job.terminal else seconds


def refreshed(job: Job) -> Job:
    """The job as it is now. With another status the whole page is drawn again: other actions, another pace."""
    now = data.job(job.id)
    if (now.status, now.latest_checkpoint is None) != (job.status, job.latest_checkpoint is None):
        st.rerun()
    return now


def guarded(page: Callable[[], None]) -> None:
    """Run a page; show what is wrong when the API cannot answer, and go on by itself when it can."""
    try:
        page()
    except data.Problem as problem:
        _explain(problem)
        if problem.is_outage:
            st.fragment(_retry, run_every=RETRY_S)()


def _explain(problem: data.Problem) -> None:
    detail = escape_markdown(problem.detail)
    if problem.kind == "unreachable":
        st.error(
            "**The API does not answer.** Is `opd up` running? Trying again every 2 seconds.",
            icon=":material/cloud_off:",
        )
        st.caption(detail)
    elif problem.kind == "unauthorized":
        st.error(
            "**The API refuses this dashboard's token.** Start the dashboard with the token of the running "
            "service in `OPD_API_TOKEN`. Trying again every 2 seconds.",
            icon=":material/key_off:",
        )
        st.caption(detail)
    elif problem.kind == "missing":
        st.warning(f"**Not found.** {detail}", icon=":material/search_off:")
        st.page_link("app_pages/runs.py", label="All runs", icon=":material/list:")
    else:
        st.error(detail, icon=":material/error:")


def _retry() -> None:
    try:
        data.check()
    except data.Problem:
        return
    data.forget()
    st.rerun()
