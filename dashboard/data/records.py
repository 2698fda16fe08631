"""What a run recorded token by token, and what is summed up from it."""

from __future__ import annotations

import streamlit as st

from api.schemas import Gates, Heatmap, Occurrences, Profile, Quantity, Sequence, SequenceSummary
from dashboard.data.connection import LIVE_S, RECORDS_S, SUMMARY_S, call, checked

GRID = (64, 64)  # positions and steps of a heatmap: as many as are kept apart


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def steps(job_id: str) -> list[int]:
    """Steps with token records, ascending."""
    return sorted(row.step for row in call(lambda api: api.steps(checked(job_id))).data)


@st.cache_data(ttl=RECORDS_S, max_entries=500, show_spinner=False)
def sequences(job_id: str, step: int) -> list[SequenceSummary]:
    """The recorded sequences of a step."""
    return list(call(lambda api: api.sequences(checked(job_id), step)).data)


@st.cache_data(ttl=RECORDS_S, max_entries=500, show_spinner=False)
def sequence(job_id: str, step: int, n: int) -> Sequence:
    """One sequence, token by token."""
    return call(lambda api: api.sequence(checked(job_id), step, n))


@st.cache_data(ttl=RECORDS_S, max_entries=500, show_spinner=False)
def quantities(job_id: str, step: int) -> dict[str, Quantity]:
    """How large each number of the step's tokens is, by name."""
    return {one.name: one for one in call(lambda api: api.quantities(checked(job_id), step)).data}


@st.cache_data(ttl=SUMMARY_S, max_entries=60, show_spinner=False)
def returns(job_id: str, field: str, from_step: int | None = None, to_step: int | None = None) -> Profile:
    """A quantity of all tokens by position and step; the whole run by default."""
    return call(lambda api: api.returns(checked(job_id), field, from_step, to_step, *GRID))


@st.cache_data(ttl=SUMMARY_S, max_entries=60, show_spinner=False)
def gates(job_id: str, gate: str | None, from_step: int, to_step: int) -> Gates:
    """What one gate (None: all together) let through over a range of steps, both ends included."""
    return call(lambda api: api.gates(checked(job_id), gate, from_step, to_step, *GRID))


@st.cache_data(ttl=RECORDS_S, max_entries=60, show_spinner=False)
def suppressed(job_id: str, token: int, from_step: int, to_step: int) -> Occurrences:
    """Where a token was written and suppressed."""
    return call(lambda api: api.suppressed(checked(job_id), token, from_step, to_step))


@st.cache_data(ttl=RECORDS_S, max_entries=60, show_spinner=False)
def routing(job_id: str, from_step: int, to_step: int, rows: int, columns: int) -> Heatmap:
    """Predicted and realised change of probability over a range of steps, both ends included."""
    return call(
        lambda api: api.routing(checked(job_id), from_step=from_step, to_step=to_step, rows=rows, columns=columns)
    )
