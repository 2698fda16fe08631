"""Follow a service job to its end."""

from __future__ import annotations

import json
from collections.abc import Callable

from rich.console import Console

from api.client import Client
from api.schemas import Job
from cli.view import RunView, accuracy_table

SUCCEEDED = "succeeded"


def follow(client: Client, job_id: str, console: Console, *, on_view: Callable[[RunView], None] | None = None) -> Job:
    """Show the job live until it ends; returns it as it ended. Reconnects by itself.

    ``on_view`` is given the view at the start, so that another thread can take the live line away.
    """
    with RunView(console) as view:
        if on_view is not None:
            on_view(view)
        job = client.job(job_id)
        view.show("phase", {"phase": job.phase, "status": job.status})
        view.show("progress", job.progress.model_dump())
        for _id, kind, data in client.stream(job_id):
            view.show(kind, data)
    return client.job(job_id)


def follow_as_json(client: Client, job_id: str, write: Callable[[str], None]) -> Job:
    """The same for scripts: one JSON object per line, the last one the job itself."""
    for event_id, kind, data in client.stream(job_id):
        write(json.dumps({"id": event_id, "type": kind, "data": data}))
    job = client.job(job_id)
    write(job.model_dump_json())
    return job


def tell_outcome(job: Job, console: Console) -> None:
    """How it ended: the accuracies of a success, the reason of a failure."""
    if job.status == SUCCEEDED:
        console.print(f"{job.id} succeeded", style="green", highlight=False)
        if job.accuracy.after is not None:
            console.print(accuracy_table(job.accuracy.model_dump()))
        return
    console.print(f"{job.id} {job.status}", style="red", highlight=False)
    if job.error is not None:
        console.print(job.error.message, markup=False, highlight=False)
