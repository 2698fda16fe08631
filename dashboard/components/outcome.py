"""What a run has made, to take away."""

from __future__ import annotations

import streamlit as st

from api.schemas import Job
from dashboard import data
from dashboard.shaping.text import escape_markdown, file_size


def results(job: Job) -> None:
    """The run as one file; checkpoints with the command that downloads them; the report of a run that succeeded."""
    st.subheader("Results", anchor=False)
    st.download_button(
        "This run as one HTML file",
        lambda: data.export(job.id),  # made when it is asked for
        file_name=f"opd-{job.id}.html",
        mime="text/html",
        icon=":material/html:",
        help="Curves, budget, routing, tokens of three steps and the report. It needs no server to be read.",
        on_click="ignore",
        key="export_html",
    )
    found = data.checkpoints(job.id)
    if not found and job.status != "succeeded":
        st.caption("This run left no checkpoint.")
        return
    st.dataframe(
        {
            "checkpoint": [one.name for one in found],
            "kind": ["final student" if one.kind == "export" else one.kind for one in found],
            "step": [one.step for one in found],
            "size": [file_size(one.size_bytes) for one in found],
            "files": [len(one.files) for one in found],
            "id": [one.id for one in found],
        },
        hide_index=True,
        key="checkpoints",
        alt="Checkpoints of this run",
    )
    exported = next((one for one in found if one.kind == "export"), found[-1] if found else None)
    if exported is not None:
        st.caption("Download with Python; every file's SHA-256 is checked:")
        st.code(
            f'from api.client import Client\nClient().download("{job.id}", "{exported.id}", "student")',
            language="python",
        )
    if job.status == "succeeded":
        _report(job)


def _report(job: Job) -> None:
    try:
        report = data.report(job.id)
    except data.Problem as problem:
        if problem.is_outage:
            raise
        st.caption(escape_markdown(problem.detail))
        return
    st.download_button(
        "report.json",
        report.model_dump_json(indent=2),
        file_name=f"{job.id}-report.json",
        mime="application/json",
        icon=":material/download:",
        on_click="ignore",
        key="report_json",
    )
