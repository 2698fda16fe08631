"""The top of every page about one run: which run, and a way to another."""

from __future__ import annotations

import streamlit as st

from api.schemas import Job
from dashboard import data
from dashboard.components import selection
from dashboard.shaping.runs import badge, run_label
from dashboard.shaping.text import escape_markdown

_PICKER = "run_picker"


def chosen_run() -> Job:
    """Draw the header and return the selected run: the URL's, else the newest. Ends the page when there is none."""
    selection.restore()
    known = {job.id: job for job in data.jobs()}
    job_id = selection.text("job") or next(iter(known), None)
    if job_id is None:
        st.info("No runs yet. Start one and it appears here by itself.", icon=":material/rocket_launch:")
        st.page_link("app_pages/new_run.py", label="Start a run", icon=":material/add:")
        st.stop()
    job = data.job(job_id)
    known.setdefault(job.id, job)
    if selection.text("job") is None:
        selection.choose(job=job.id)

    name, picker = st.columns([4, 3], vertical_alignment="center")
    name.subheader(escape_markdown(job.name), anchor=False)
    st.session_state[_PICKER] = job.id
    picker.selectbox(
        "Run",
        list(known),
        format_func=lambda one: run_label(known[one]),
        key=_PICKER,
        on_change=lambda: selection.choose(job=st.session_state[_PICKER]),
        label_visibility="collapsed",
    )
    return job


def status_badge(job: Job) -> None:
    """The status as a coloured badge."""
    color, icon = badge(job.status)
    st.badge(job.status, color=color, icon=icon)


def no_records(job: Job, icon: str) -> None:
    """Why a page about recorded tokens is empty."""
    status_badge(job)
    st.info(
        "This run recorded no tokens." if job.terminal else "No records yet: the first step is on its way.", icon=icon
    )
