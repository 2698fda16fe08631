"""Which runs are compared, on which axis, and which two of them token by token. The URL holds it: a view is a link.

Its memory is apart from the one of the pages about a single run: going to and fro loses neither.
"""

from __future__ import annotations

import streamlit as st

from dashboard import data
from dashboard.components import selection
from dashboard.shaping.compared import AXES
from dashboard.shaping.runs import run_label

KEYS = ("jobs", "x", "left", "right", "near", "pair", "color", "lt", "rt")
MOST = 8
_MEMORY = "comparison"
_PICKER, _AXIS = "compare_jobs", "compare_axis"


def restore() -> None:
    """Put the remembered comparison back into an empty URL."""
    if "jobs" not in st.query_params:
        for key, value in st.session_state.get(_MEMORY, {}).items():
            st.query_params[key] = value
    _remember()


def choose(**changes: str | int | None) -> None:
    """Write to the URL; None removes."""
    selection.write(changes)
    _remember()


def _remember() -> None:
    st.session_state[_MEMORY] = {key: st.query_params[key] for key in KEYS if key in st.query_params}


def chosen_jobs() -> list[str]:
    """The runs of the URL, each once."""
    return list(dict.fromkeys(filter(None, (selection.text("jobs") or "").split(","))))[:MOST]


def pick_runs() -> list[str]:
    """Draw the choice of runs and return it."""
    known = {job.id: job for job in data.jobs()}
    chosen = chosen_jobs()
    for job_id in chosen:
        if job_id not in known:
            known[job_id] = data.job(job_id)
    st.session_state[_PICKER] = chosen
    st.multiselect(
        "Runs",
        list(known),
        format_func=lambda one: run_label(known[one]),
        key=_PICKER,
        max_selections=MOST,
        placeholder="Choose two to eight runs",
        on_change=lambda: choose(jobs=",".join(st.session_state[_PICKER]) or None),
    )
    return chosen


def pick_axis() -> str:
    """Draw the choice of the horizontal axis and return it."""
    axis = selection.text("x")
    st.session_state[_AXIS] = axis if axis in AXES else "step"
    st.segmented_control(
        "Against",
        list(AXES),
        format_func=AXES.__getitem__,
        key=_AXIS,
        required=True,
        on_change=lambda: choose(x=st.session_state[_AXIS]),
    )
    return str(st.session_state[_AXIS])
