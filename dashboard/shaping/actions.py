"""What can be done with a run in its present status."""

from __future__ import annotations

from typing import Literal

from api.schemas import Job

Action = Literal["duplicate", "fork", "save", "pause", "resume", "cancel", "delete"]


def possible(job: Job) -> list[Action]:
    """In the order in which the buttons stand. The service has the last word."""
    found: list[Action] = []
    if job.status in ("queued", "preparing", "running"):
        found.append("pause")
    if job.status in ("pausing", "paused"):
        found.append("resume")
    if job.status in ("preparing", "running") and not job.save_wanted:
        found.append("save")
    found.append("duplicate")
    if job.latest_checkpoint is not None:
        found.append("fork")
    if not job.terminal and job.status != "cancelling":
        found.append("cancel")
    if job.terminal:
        found.append("delete")
    return found
