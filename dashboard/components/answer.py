"""Waiting for a worker's answer to a question; the URL holds which, so that an answer is a link."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from api.schemas import Job, Question
from dashboard import data
from dashboard.components import live, selection
from dashboard.shaping import what_if
from dashboard.shaping.text import escape_markdown, seconds_since


def ask(key: str, question: Callable[[], Question]) -> None:
    """Ask, and remember the question in the URL under ``key``. A refusal is shown with its field."""
    try:
        asked = question()
    except data.Problem as problem:
        if problem.is_outage:
            raise
        field = f"**{escape_markdown(problem.param)}** · " if problem.param else ""
        st.error(f"{field}{escape_markdown(problem.detail)}", icon=":material/error:")
        return
    selection.choose(**{key: asked.id, "token": None, "token2": None})


def answered(job: Job, key: str) -> Question | None:
    """The answer to the question in the URL; None while there is none, which is said."""
    asked = selection.text(key)
    if asked is None:
        return None
    closed = f"answer_closed_{key}"
    known = st.session_state.get(closed)
    if isinstance(known, Question) and (known.job_id, known.id) == (job.id, asked) and known.result is not None:
        return known  # it never changes, and may be a megabyte
    try:
        question = data.question(job.id, asked)
    except data.Problem as problem:
        if problem.kind != "missing":
            raise
        st.info("This answer is no longer kept. Ask again.", icon=":material/history:")
        return None
    if not question.closed:
        live.panel(lambda: _wait(job, asked), every=live.TICK_S)
        return None
    if question.status == "failed":
        st.error(escape_markdown(what_if.why_not(question)), icon=":material/error:")
        return None
    st.session_state[closed] = question
    return question


def _wait(job: Job, asked: str) -> None:
    question = data.question(job.id, asked)
    if question.closed:
        st.rerun()
    share = {"waiting": 0.1, "working": 0.5}[question.status]
    told = what_if.waiting(question, seconds_since(question.created_at) or 0.0)
    st.progress(share, text=escape_markdown(told))
    if not any("_aside" in worker.queues and worker.alive for worker in data.workers()):
        st.caption(
            "No worker answers questions now. `opd up` starts one; elsewhere: "
            "`celery -A worker.app worker -c 1 -Q _aside`."
        )


def badges(marks: dict[str, what_if.Mark]) -> None:
    """What of a plan is exact, and why the rest is not."""
    exact, approximate = what_if.exact(marks), what_if.approximate(marks)
    if exact:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge("exact", color="green", icon=":material/check:")
            st.caption(escape_markdown(", ".join(exact)))
    for names, why in approximate:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge("approximate", color="orange", icon=":material/warning:")
            st.caption(escape_markdown(f"{names}: {why}"))
