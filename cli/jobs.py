"""The commands about jobs of a service: submit, list, watch, and their lifecycle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from api.client import Client
from cli import specs
from cli.estimate import tell_estimate
from cli.follow import SUCCEEDED, follow, follow_as_json, tell_outcome
from cli.terminal import AsJson, JobId, Overrides, SpecFile, complain, line, out, service
from cli.view import percent

app = typer.Typer()


@app.command()
def submit(
    spec: SpecFile,
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the spec; print warnings and what it may take; queue nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Queue a job and print its id.

    opd submit examples/demo.yaml --watch

    opd submit examples/demo.yaml --set recipe=reverse-kl --set seed=1 --check
    """
    with service() as client:
        if check:
            found = client.validate(specs.read(spec, overrides))
            if as_json:
                line(found.model_dump_json())
            else:
                tell_estimate(found, out)
            return
        job = client.submit(specs.read(spec, overrides))
        if as_json:
            line(job.model_dump_json())
        else:
            line(job.id)
        if watch:
            raise typer.Exit(_watch(client, job.id, as_json=as_json))


@app.command()
def watch(job: JobId, as_json: AsJson = False) -> None:
    """Follow a job to its end. Exit code 0 if it succeeded, 1 if not."""
    with service() as client:
        raise typer.Exit(_watch(client, job, as_json=as_json))


@app.command(name="jobs")
def list_jobs(
    as_json: AsJson = False,
    status: Annotated[str | None, typer.Option(help="Only jobs in this status, e.g. running.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
) -> None:
    """List jobs, newest first."""
    with service() as client:
        page = client.jobs(limit=limit, status=status)
    if as_json:
        for job in page.data:
            line(job.model_dump_json())
        return
    table = Table("job", "name", "recipe", "status", "step", "accuracy", "created")
    for job in page.data:
        step = "" if job.progress.step is None else f"{job.progress.step}/{job.progress.total}"
        latest = job.accuracy.after if job.accuracy.after is not None else job.accuracy.latest
        created = f"{job.created_at.astimezone():%Y-%m-%d %H:%M}"
        table.add_row(job.id, job.name, job.recipe, job.status, step, percent(latest), created)
    out.print(table)


@app.command()
def cancel(job: JobId, as_json: AsJson = False) -> None:
    """Stop a job. Its last checkpoint is kept."""
    with service() as client:
        cancelled = client.cancel(job)
    line(cancelled.model_dump_json() if as_json else f"{cancelled.id} {cancelled.status}")


@app.command()
def export(
    job: JobId,
    file: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Default: opd-JOB.html here.", dir_okay=False)
    ] = None,
) -> None:
    """Take a run home as one HTML file: curves, budget, routing, tokens, report. It needs no server to be read."""
    with service() as client:
        content = client.export(job)
        target = file or Path(f"opd-{client.job(job).id}.html")
    try:
        target.write_bytes(content)
    except OSError as error:
        complain(f"--out: cannot write {str(target)!r}: {error.strerror}")
        raise typer.Exit(2) from error
    line(str(target))


@app.command()
def pause(job: JobId, as_json: AsJson = False) -> None:
    """Let a job rest: it saves a checkpoint after its step, and its worker is free for others."""
    with service() as client:
        paused = client.pause(job)
    line(paused.model_dump_json() if as_json else f"{paused.id} {paused.status}")


@app.command()
def resume(job: JobId, as_json: AsJson = False) -> None:
    """Let a paused job go on from its checkpoint."""
    with service() as client:
        resumed = client.resume(job)
    line(resumed.model_dump_json() if as_json else f"{resumed.id} {resumed.status}")


@app.command()
def save(job: JobId, as_json: AsJson = False) -> None:
    """Save a checkpoint of a running job after its step."""
    with service() as client:
        saving = client.save(job)
    line(saving.model_dump_json() if as_json else f"{saving.id} checkpoint requested")


@app.command()
def fork(
    job: JobId,
    checkpoint: Annotated[str | None, typer.Option(metavar="ID", help="Default: the newest checkpoint.")] = None,
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the new job to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Queue a job like another one whose student starts from that job's checkpoint; prints the new id.

    opd fork JOB --set recipe=reverse-kl --set name=second-half
    """
    with service() as client:
        spec = client.job(job).spec
        specs.override(spec, overrides or [])
        forked = client.submit({**spec, "from": {"job": job, "checkpoint": checkpoint}})
        line(forked.model_dump_json() if as_json else forked.id)
        if watch:
            raise typer.Exit(_watch(client, forked.id, as_json=as_json))


@app.command()
def delete(
    job: JobId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a job that has ended, with its records, checkpoints and final student."""
    with service() as client:
        found = client.job(job)
        if not yes:
            typer.confirm(f"Delete {found.name} ({found.id}, {found.status}) and all its files?", abort=True, err=True)
        client.delete(job)
    line(f"{job} deleted")


def _watch(client: Client, job_id: str, *, as_json: bool) -> int:
    if as_json:
        job = follow_as_json(client, job_id, line)
    else:
        job = follow(client, job_id, out)
        tell_outcome(job, out)
    return 0 if job.status == SUCCEEDED else 1
