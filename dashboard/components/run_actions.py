"""What can be done with a run: buttons, those that end or remove something with a question first."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from api.schemas import Job
from dashboard import data
from dashboard.components import pages, selection
from dashboard.shaping.actions import possible
from dashboard.shaping.text import escape_markdown


def action_bar(job: Job) -> None:
    """The buttons that fit the run's status."""
    draw: dict[str, Callable[[Job], None]] = {
        "pause": _pause,
        "resume": _resume,
        "save": _save,
        "duplicate": _duplicate,
        "fork": _fork,
        "cancel": _cancel,
        "delete": _delete,
    }
    with st.container(horizontal=True, key="run_actions"):
        for action in possible(job):
            draw[action](job)


def _do(wish: Callable[[], object], said: str, icon: str) -> None:
    """Ask, and draw the page anew."""
    _ask(wish, said, icon)
    st.rerun()


def _ask(wish: Callable[[], object], said: str, icon: str) -> bool:
    """Ask and say so. A refusal (the status may have changed meanwhile) is said instead."""
    try:
        wish()
    except data.Problem as problem:
        if problem.is_outage:
            raise
        st.toast(escape_markdown(problem.detail), icon=":material/error:")
        data.forget()
        return False
    st.toast(said, icon=icon)
    return True


def _pause(job: Job) -> None:
    about = "Saves a checkpoint after the running step and frees the worker."
    if st.button("Pause", icon=":material/pause:", key="action_pause", help=about):
        _do(lambda: data.pause(job.id), "Pausing: the trainer saves a checkpoint first.", ":material/pause:")


def _resume(job: Job) -> None:
    about = "Goes on from the checkpoint as if it had never paused."
    if st.button("Resume", icon=":material/play_arrow:", key="action_resume", type="primary", help=about):
        _do(lambda: data.resume(job.id), "Resumed.", ":material/play_arrow:")


def _save(job: Job) -> None:
    about = "Saves a checkpoint after the running step and goes on."
    if st.button("Save now", icon=":material/save:", key="action_save", help=about):
        _do(lambda: data.save(job.id), "A checkpoint follows the running step.", ":material/save:")


def _duplicate(job: Job) -> None:
    about = "Opens the form with this run's spec."
    if st.button("Duplicate", icon=":material/content_copy:", key="action_duplicate", help=about):
        pages.go(pages.NEW_RUN, like=job.id)


def _fork(job: Job) -> None:
    about = "Opens the form for a run whose student starts from this run's newest checkpoint."
    if st.button("Fork", icon=":material/fork_right:", key="action_fork", help=about):
        pages.go(pages.NEW_RUN, fork=job.id, checkpoint=str(job.latest_checkpoint))


def _cancel(job: Job) -> None:
    with st.popover("Cancel", icon=":material/stop_circle:", key="cancel_popover"):
        st.write("End this run within seconds? Its last checkpoint stays, but it cannot go on. Pause it for that.")
        if st.button("Yes, cancel this run", type="primary", key="cancel_yes"):
            said = "Cancelling: the trainer finishes its step first."
            _do(lambda: data.cancel(job.id), said, ":material/stop_circle:")


def _delete(job: Job) -> None:
    with st.popover("Delete", icon=":material/delete:", key="delete_popover"):
        st.write(
            f"Remove **{escape_markdown(job.name)}** with its curves, token records, checkpoints and final student?"
        )
        if st.button("Yes, delete this run", type="primary", key="delete_yes"):
            if _ask(lambda: data.delete(job.id), "Deleted.", ":material/delete:"):
                selection.choose(job=None)
                pages.go(pages.RUNS)
            st.rerun()
