"""All runs, and what can be done with each."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from api.schemas import Job
from dashboard import data
from dashboard.components import live, pages
from dashboard.components.run_actions import action_bar
from dashboard.components.run_header import status_badge
from dashboard.shaping.actions import possible
from dashboard.shaping.runs import matching, revision, status_options, table
from dashboard.shaping.text import escape_markdown

OPEN, ACT = ":material/arrow_forward:", ":material/more_horiz:"
_CHOSEN = "runs_chosen"  # the id of the run whose actions are shown


def listing() -> None:
    """The table of runs, filtered."""
    jobs = data.jobs()
    if not jobs:
        st.info("No runs yet. Start one: it appears here by itself.", icon=":material/rocket_launch:")
        return
    statuses, colors = status_options()
    present = [status for status in statuses if any(job.status == status for job in jobs)]
    text, status = st.columns([2, 3], vertical_alignment="bottom")
    words = text.text_input(
        "Search", key="runs_text", placeholder="name, recipe, worker or id", type="search", label_visibility="collapsed"
    )
    wanted = status.pills("Status", present, selection_mode="multi", key="runs_status", label_visibility="collapsed")
    shown = matching(jobs, statuses=wanted or (), text=words or "")
    if not shown:
        st.caption(f"None of the {len(jobs)} runs match.")
        return
    rows = table(shown, {job.id: data.trend(job.id, revision(job)) for job in shown}, datetime.now(UTC))
    rows.insert(0, "Open", [OPEN] * len(rows))
    rows.insert(1, "Act", [ACT] * len(rows))
    st.session_state["runs_shown"] = [job.id for job in shown]
    st.dataframe(
        rows,
        hide_index=True,
        height="content" if len(rows) <= 12 else 480,
        row_height=36,
        key="runs_table",
        alt="Runs, newest first",
        column_config={
            "Open": st.column_config.ButtonColumn(
                "", width=44, type="tertiary", key="runs_open", on_click=open_clicked
            ),
            "Act": st.column_config.ButtonColumn("", width=44, type="tertiary", key="runs_act", on_click=act_clicked),
            "Run": st.column_config.TextColumn("Run", width=160),
            "Status": st.column_config.MultiselectColumn("Status", options=statuses, color=colors, width=100),
            "Progress": st.column_config.ProgressColumn(
                "Progress", min_value=0, max_value=100, format="%.0f%%", width=100
            ),
            "Accuracy": st.column_config.TextColumn(
                "Accuracy", width=135, help="Before training → newest evaluation, of the teacher's"
            ),
            "Trend": st.column_config.LineChartColumn("Trend", y_min=0.0, y_max=1.0, width=80),
            "Gap closed": st.column_config.TextColumn("Gap", width=60, help="(now − before) / (teacher − before)"),
            "Tokens": st.column_config.TextColumn(
                "Tokens", width=110, help="Written by the student / scored by the teacher"
            ),
            "Compute": st.column_config.TextColumn("Compute", width=95, help="Estimated floating point operations"),
            "Recipe": st.column_config.TextColumn("Recipe", width=100),
            "Worker": st.column_config.TextColumn("Worker", width=100),
            "Age": st.column_config.TextColumn("Age", width=70),
            "Now": st.column_config.TextColumn("Now", width=190),
        },
    )


def open_clicked() -> None:
    """Remember which run to open; a callback cannot switch pages itself."""
    shown, row = st.session_state["runs_shown"], st.session_state["runs_open"].row
    if row < len(shown):
        st.session_state["runs_go"] = shown[row]


def act_clicked() -> None:
    """Remember whose actions to show; a second click puts them away."""
    shown, row = st.session_state["runs_shown"], st.session_state["runs_act"].row
    if row < len(shown):
        st.session_state[_CHOSEN] = None if st.session_state.get(_CHOSEN) == shown[row] else shown[row]
        st.session_state["runs_anew"] = True


def chosen() -> Job | None:
    """The run whose actions are shown; it may have been deleted meanwhile."""
    return next((job for job in data.jobs() if job.id == st.session_state.get(_CHOSEN)), None)


def actions(job: Job) -> None:
    """The action bar of one run, above the table: the table moves on, the bar does not."""
    with st.container(border=True, key="runs_actions"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{escape_markdown(job.name)}** :gray[{escape_markdown(job.id)}]", width="content")
            status_badge(job)
        action_bar(job)


def page() -> None:
    """The listing with the actions of one run above it."""
    title, new = st.columns([5, 1], vertical_alignment="center")
    title.header("Runs", anchor=False)
    if new.button("New run", type="primary", icon=":material/add:", key="runs_new", width="stretch"):
        pages.go(pages.NEW_RUN)
    job = chosen()
    if job is not None:
        actions(job)
    jobs = data.jobs()
    # A new run of another viewer may start any time, so the list never stops; it only slows down.
    busy = any(not job.terminal for job in jobs)
    live.panel(lambda: refreshing_listing(job), every=live.TICK_S if busy else 5 * live.TICK_S)


def refreshing_listing(drawn: Job | None) -> None:
    """The listing, the jump to a run that was clicked, and a new action bar when other actions are possible."""
    if (go := st.session_state.pop("runs_go", None)) is not None:
        pages.go(pages.OVERVIEW, job=go)
    now = chosen()
    if st.session_state.pop("runs_anew", False) or (now and possible(now)) != (drawn and possible(drawn)):
        st.rerun()
    listing()


page()
