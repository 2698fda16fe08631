"""The top of every page about one run: which run, and a way to another."""

from __future__ import annotations

import streamlit as st

from api.schemas import Job
from dashboard import data
from dashboard.components import live, selection
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


def recorded_steps(job: Job, icon: str) -> list[int]:
    """Steps with token records, ascending: what every page about tokens begins with. Where there are none, says why."""
    now = live.refreshed(job)
    steps = data.steps(job.id)
    if not steps:
        status_badge(now)
        why = (
            "This run recorded no tokens (telemetry.sequences_per_step is 0, or it ended before its first step)."
            if now.terminal
            else "No records yet: the first step is on its way."
        )
        st.info(why, icon=icon)
    return steps
