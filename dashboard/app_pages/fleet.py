"""Who works, what waits, and what went wrong lately."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import streamlit as st

from dashboard import data
from dashboard.components import live, pages
from dashboard.shaping import fleet
from dashboard.shaping.text import escape_markdown

OPEN = ":material/arrow_forward:"


def workers() -> None:
    """Who is alive, and what runs where."""
    st.subheader("Workers", anchor=False)
    found = data.workers()
    if not found:
        st.info(
            "No worker has been heard of. `opd up` starts one on this machine; on another one it is this command, with "
            "OPD_REDIS_URL and OPD_DATABASE_URL in its environment:",
            icon=":material/dns:",
        )
        st.code(fleet.START_WORKER.format(queue="cpu"), language="bash")
        return
    jobs = {job.id: job for job in data.jobs()}
    busy = {one.job_id: jobs.get(one.job_id) for one in found if one.job_id and one.alive}
    held = {job_id: data.memory(job_id, job.progress.step if job else None) for job_id, job in busy.items()}
    st.dataframe(
        fleet.worker_table(found, jobs, held),
        hide_index=True,
        key="workers",
        alt="Workers, the living first",
        column_config={
            "State": st.column_config.MultiselectColumn(
                "State", options=["busy", "idle", "silent"], color=["blue", "green", "red"], width=70
            ),
            "Lease": st.column_config.TextColumn(
                "Lease", help="Until its run is taken back unless the worker is heard of."
            ),
            "Worker": st.column_config.TextColumn("Worker", width=150),
            "Memory": st.column_config.TextColumn(
                "Memory", help="What the training process held at its newest step; of a GPU the most of that step."
            ),
            "Labels": st.column_config.TextColumn("Labels", width="large"),
        },
    )
    if not any(one.alive for one in found):
        st.warning("No worker is alive: runs wait. Start one:", icon=":material/warning:")
        st.code(fleet.START_WORKER.format(queue="cpu"), language="bash")


def queues() -> None:
    """What waits where."""
    st.subheader("Queues", anchor=False)
    found = data.queues()
    if not found:
        st.caption("No queue: nothing waits, and no worker listens.")
        return
    st.dataframe(fleet.queue_table(found), hide_index=True, key="queues", alt="Queues by name")
    for queue in fleet.unserved(found):
        name = escape_markdown(queue.name)
        st.warning(
            f"Nobody serves **{name}**, and {queue.waiting} wait in it. Start a worker:", icon=":material/warning:"
        )
        st.code(fleet.START_WORKER.format(queue=queue.name), language="bash")


def failures() -> None:
    """Starts that ended badly."""
    st.subheader("Starts that ended badly", anchor=False)
    found = data.failed_attempts()
    if not found:
        st.caption("None: every start so far ended as its user or operator wanted.")
        return
    rows = fleet.failure_table(found, {job.id: job for job in data.jobs()}, datetime.now(UTC))
    rows.insert(0, "Open", [OPEN] * len(rows))
    st.session_state["failures_shown"] = [one.job_id for one in found]
    st.dataframe(
        rows,
        hide_index=True,
        key="failures",
        alt="Starts of runs that ended badly, newest first",
        column_config={
            "Open": st.column_config.ButtonColumn(
                "", width=44, type="tertiary", key="failures_open", on_click=open_clicked
            ),
            "Why": st.column_config.TextColumn("Why", width="large"),
        },
    )


def open_clicked() -> None:
    """Remember which run to open; a callback cannot switch pages itself."""
    shown, row = st.session_state["failures_shown"], st.session_state["failures_open"].row
    if row < len(shown):
        st.session_state["fleet_go"] = shown[row]


def jumping(body: Callable[[], None]) -> Callable[[], None]:
    """The panel, after the jump to a run that was clicked in it."""

    def run() -> None:
        if (go := st.session_state.pop("fleet_go", None)) is not None:
            pages.go(pages.OVERVIEW, job=go)
        body()

    return run


st.header("Fleet", anchor=False)
live.panel(workers, every=live.SLOW_TICK_S)
live.panel(queues, every=live.SLOW_TICK_S)
live.panel(jumping(failures), every=5.0)
