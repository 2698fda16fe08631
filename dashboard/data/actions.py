"""What changes something: every write drops what was remembered."""

from __future__ import annotations

from typing import Any

from api.schemas import Job, Validation
from dashboard.data.connection import call, checked, forget


def validate(spec: dict[str, Any]) -> Validation:
    """What to know about a good spec. Raises Problem (with ``param``) for a bad one."""
    return call(lambda api: api.validate(spec))


def submit(spec: dict[str, Any], idempotency_key: str) -> Job:
    """Accept the job. The same key twice is the same job."""
    made = call(lambda api: api.submit(spec, idempotency_key=idempotency_key))
    forget()
    return made


def pause(job_id: str) -> None:
    """Ask the run to rest; it saves a checkpoint first."""
    call(lambda api: api.pause(checked(job_id)))
    forget()


def resume(job_id: str) -> None:
    """Let a paused run go on."""
    call(lambda api: api.resume(checked(job_id)))
    forget()


def save(job_id: str) -> None:
    """Ask for a checkpoint."""
    call(lambda api: api.save(checked(job_id)))
    forget()


def cancel(job_id: str) -> None:
    """Ask the worker to stop; the last checkpoint stays."""
    call(lambda api: api.cancel(checked(job_id)))
    forget()


def delete(job_id: str) -> None:
    """Remove a run that is over, with all that it left."""
    call(lambda api: api.delete(checked(job_id)))
    forget()
