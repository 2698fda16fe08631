"""All runs, and the form that starts one."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from api.schemas import Job
from dashboard import data
from dashboard.components import live
from dashboard.components.submit_form import submit_form
from dashboard.shaping.runs import matching, status_options, table

OPEN = ":material/arrow_forward:"


def listing() -> None:
    """The table of runs, filtered."""
    jobs = data.jobs()
    if not jobs:
        st.info(
            "No runs yet. Choose a recipe below and submit: the run appears here by itself.",
            icon=":material/rocket_launch:",
        )
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
    trends = {job.id: data.accuracy_trend(job.id, f"{job.status} {job.progress.step}") for job in shown}
    rows = table(shown, trends, datetime.now(UTC))
    rows.insert(0, "Open", [OPEN] * len(rows))
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
            "Run": st.column_config.TextColumn("Run", width=170),
            "Status": st.column_config.MultiselectColumn("Status", options=statuses, color=colors, width=105),
            "Progress": st.column_config.ProgressColumn(
                "Progress", min_value=0, max_value=100, format="%.0f%%", width=120
            ),
            "Now": st.column_config.TextColumn("Now", width=190),
            "Accuracy": st.column_config.TextColumn(
                "Accuracy", width=140, help="Before training → newest evaluation, of the teacher's"
            ),
            "Trend": st.column_config.LineChartColumn("Trend", y_min=0.0, y_max=1.0, width=90),
            "Recipe": st.column_config.TextColumn("Recipe", width=110),
            "Worker": st.column_config.TextColumn("Worker", width=110),
            "Age": st.column_config.TextColumn("Age", width=90),
        },
    )


def open_clicked() -> None:
    """Remember which run to open; a callback cannot switch pages itself."""
    shown, row = st.session_state["runs_shown"], st.session_state["runs_open"].row
    if row < len(shown):
        st.session_state["runs_go"] = shown[row]


def page() -> None:
    """The listing, then the form."""
    st.header("Runs", anchor=False)
    jobs: list[Job] = data.jobs()
    # A new run of another viewer may start any time, so the list never stops; it only slows down.
    busy = any(not job.terminal for job in jobs)
    live.panel(refreshing_listing, every=live.TICK_S if busy else 5 * live.TICK_S)
    with st.expander("Start a new run", icon=":material/add:", expanded=not jobs, key="new_run"):
        submit_form(jobs)


def refreshing_listing() -> None:
    """The listing, and the jump to a run that was clicked."""
    if (go := st.session_state.pop("runs_go", None)) is not None:
        st.switch_page("app_pages/overview.py", query_params={"job": go})
    listing()


page()
