"""Runs: the list, one of them, and how it goes."""

from __future__ import annotations

import streamlit as st

from api.schemas import Attempt, Checkpoint, Event, Health, Job, Metrics, Page, Report
from dashboard.data.connection import LIVE_S, SETTLED_S, SUMMARY_S, call, checked
from dashboard.shaping.curves import newest
from dashboard.shaping.fleet import Memory
from dashboard.shaping.runs import Trend

MAX_EVENTS = 1000
MEMORY = ("memory_gib", "gpu_memory_gib")


@st.cache_data(ttl=LIVE_S, max_entries=4, show_spinner=False)
def jobs(limit: int = 50) -> list[Job]:
    """The newest runs, newest first."""
    return list(call(lambda api: api.jobs(limit=limit)).data)


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def job(job_id: str) -> Job:
    """One run."""
    return call(lambda api: api.job(checked(job_id)))


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def metrics(job_id: str, max_points: int = 400) -> Metrics:
    """All series of a run, thinned out by the server to at most ``max_points`` steps."""
    return call(lambda api: api.metrics(checked(job_id), max_points=max_points))


@st.cache_data(ttl=60.0, max_entries=500, show_spinner=False)
def trend(job_id: str, revision: str) -> Trend:  # noqa: ARG001 - part of the cache key
    """How the run has gone so far. ``revision`` changes with the run, so that a still one rests."""
    answer = call(lambda api: api.metrics(checked(job_id), keys=["accuracy", "flops", "wall_s"], max_points=30))
    accuracies = tuple(value for value in answer.series.get("accuracy", ()) if value is not None)
    return Trend(accuracies, newest(answer, "flops"), newest(answer, "wall_s"))


@st.cache_data(ttl=LIVE_S, max_entries=100, show_spinner=False)
def memory(job_id: str, step: int | None) -> Memory:
    """What the run's process holds since that step; None is before the first one."""
    answer = call(lambda api: api.metrics(checked(job_id), keys=MEMORY, from_step=step or 0, max_points=1))
    return Memory(*(newest(answer, key) for key in MEMORY))


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def events(job_id: str) -> list[Event]:
    """The run's events, oldest first."""
    found: list[Event] = []
    more = True
    while more and len(found) < MAX_EVENTS:
        page = _events_after(job_id, found[-1].seq if found else None)
        found += page.data
        more = page.has_more
    return found


def _events_after(job_id: str, after: int | None) -> Page[Event]:
    return call(lambda api: api.events(checked(job_id), after=after, limit=100))


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def attempts(job_id: str) -> list[Attempt]:
    """How often the run was started, and how each start ended."""
    return list(call(lambda api: api.attempts(checked(job_id))).data)


@st.cache_data(ttl=SUMMARY_S, max_entries=60, show_spinner=False)
def health(job_id: str) -> Health:
    """The diagnostics of a run as lights."""
    return call(lambda api: api.health(checked(job_id)))


@st.cache_data(ttl=5.0, max_entries=100, show_spinner=False)
def checkpoints(job_id: str) -> list[Checkpoint]:
    """Complete checkpoints and the exported student."""
    return list(call(lambda api: api.checkpoints(checked(job_id))).data)


@st.cache_data(ttl=SETTLED_S, max_entries=100, show_spinner=False)
def report(job_id: str) -> Report:
    """The finished run's report."""
    return call(lambda api: api.report(checked(job_id)))


def export(job_id: str) -> bytes:
    """The run as one HTML file; large, so made only when somebody wants it."""
    return call(lambda api: api.export(checked(job_id)))
