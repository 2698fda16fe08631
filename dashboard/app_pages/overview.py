"""One run: how far, how well, at what price; curves; what happened."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from api.schemas import Job
from dashboard import data
from dashboard.components import live, outcome
from dashboard.components.figures import figures
from dashboard.components.health_panel import health_panel
from dashboard.components.run_actions import action_bar
from dashboard.components.run_header import chosen_run, status_badge
from dashboard.shaping import curves
from dashboard.shaping.runs import attempt_table, budget, event_table, fraction, headline, progress_text, revision
from dashboard.shaping.text import escape_markdown

HEALTH_TICK_S = 5.0

job = chosen_run()
action_bar(job)


def state() -> None:
    """Status, progress, headline numbers."""
    now = live.refreshed(job)
    with st.container(horizontal=True, vertical_alignment="center"):
        status_badge(now)
        facts = [now.recipe, f"attempt {now.attempt}", now.worker, now.id]
        st.caption(escape_markdown(" · ".join(filter(None, facts))))
    if now.error is not None:
        where = f" ({now.error.param})" if now.error.param else ""
        st.error(escape_markdown(f"{now.error.message}{where}"), icon=":material/error:")
    for warning in now.warnings:
        st.warning(escape_markdown(warning), icon=":material/warning:")
    gone = data.trend(now.id, revision(now))
    st.progress(fraction(now), text=escape_markdown(progress_text(now, gone.training_s)))
    figures(headline(now))
    figures(budget(now, gone, datetime.now(UTC)))


def health() -> None:
    """The diagnostics as lights, once there is anything to tell."""
    found = data.health(job.id)
    if any(check.status != "unknown" for check in found.checks):
        health_panel(found)


def charts() -> None:
    """The learning curves, by what they are about; only those that the run has."""
    now = data.job(job.id)
    answer = data.metrics(now.id)
    tables = {
        title: [(curve, curves.frame(curve, answer.steps, answer.series)) for curve in group]
        for title, group in curves.GROUPS.items()
    }
    drawn = {title: [(curve, table) for curve, table in group if table is not None] for title, group in tables.items()}
    if not any(drawn.values()):
        quiet = "This run recorded no metrics." if now.terminal else "No metrics yet: the first step is on its way."
        st.info(quiet, icon=":material/timeline:")
    for title, group in drawn.items():
        if group:
            st.subheader(title, anchor=False)
            with st.grid(3, min_column_width=300):
                for curve, table in group:
                    chart(curve, table, now)


def chart(curve: curves.Curve, table: pd.DataFrame, now: Job) -> None:
    """One learning curve."""
    is_accuracy = curve.key == "accuracy"
    with st.container(border=True, key=f"curve_{curve.key}"):
        st.markdown(f"**{curve.title}** :gray[{escape_markdown(curve.unit)}]")
        st.echarts_chart(
            curves.option(
                curve,
                table,
                end=curves.horizon(now.progress.step, now.progress.total),
                ceiling=now.accuracy.teacher if is_accuracy else None,
                start=now.accuracy.before if is_accuracy else None,
            ),
            height=190,
            key=f"chart_{curve.key}",
            alt=curves.takeaway(curve, table),
        )


def history() -> None:
    """Events and attempts."""
    st.subheader("Events", anchor=False)
    rows = data.events(job.id)
    if not rows:
        st.caption("Nothing has happened yet.")
        return
    st.dataframe(
        event_table(rows),
        hide_index=True,
        height="content" if len(rows) < 10 else 360,
        column_config={
            "time": st.column_config.DatetimeColumn("time (UTC)", format="MMM D, HH:mm:ss", width=130),
            "level": st.column_config.TextColumn("level", width=70),
            "attempt": st.column_config.TextColumn("attempt", width=70, alignment="right"),
            "event": st.column_config.TextColumn("event", width=150),
            "message": st.column_config.TextColumn("message", width="large"),
        },
        key="events",
        alt="Events of this run, newest first",
    )
    starts = data.attempts(job.id)
    if starts:
        st.subheader("Attempts", anchor=False)
        st.dataframe(attempt_table(starts), hide_index=True, key="attempts", alt="Starts of this run and their ends")


live.panel(state, every=live.tick(job))
live.panel(health, every=live.tick(job, HEALTH_TICK_S))
live.panel(charts, every=live.tick(job, live.SLOW_TICK_S))
if job.terminal:
    outcome.results(job)
live.panel(history, every=live.tick(job, live.SLOW_TICK_S))
