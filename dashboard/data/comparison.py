"""Several runs side by side."""

from __future__ import annotations

import streamlit as st

from api.schemas import Axis, Comparison, SharedProblem
from dashboard.data.connection import LIVE_S, RECORDS_S, call, checked


@st.cache_data(ttl=LIVE_S, max_entries=40, show_spinner=False)
def compare(job_ids: tuple[str, ...], axis: Axis, max_points: int = 300) -> Comparison:
    """Two to eight runs against one axis, and their head-to-head."""
    ids = [checked(job_id) for job_id in job_ids]
    return call(lambda api: api.compare(ids, x=axis, max_points=max_points))


@st.cache_data(ttl=RECORDS_S, max_entries=200, show_spinner=False)
def shared_problems(left: str, right: str, step: int) -> list[SharedProblem]:
    """Problems that both runs recorded near a step, nearest first."""
    return list(call(lambda api: api.shared_problems(checked(left), checked(right), step)).data)
