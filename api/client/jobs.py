"""Jobs: submit, steer, wait for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from api import schemas as s
from api.client.transport import Transport
from opd_core.spec import JobSpec

Spec = JobSpec | Mapping[str, Any]


class Jobs(Transport):
    """What is done with a job as a whole."""

    def submit(self, spec: Spec, idempotency_key: str | None = None) -> s.Job:
        """Create and queue a job."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._as(s.Job, self._request("POST", "/v1/jobs", json=_plain(spec), headers=headers))

    def validate(self, spec: Spec) -> s.Validation:
        """The spec as it would be trained, with warnings; nothing is created."""
        params = {"validate_only": "true"}
        return self._as(s.Validation, self._request("POST", "/v1/jobs", json=_plain(spec), params=params))

    def job(self, id: str) -> s.Job:
        """A job as it stands."""
        return self._get(s.Job, f"/v1/jobs/{id}")

    def jobs(
        self, limit: int = 20, after: str | None = None, status: str | None = None, name: str | None = None
    ) -> s.Page[s.Job]:
        """Jobs, newest first; ``name`` = part of the name."""
        return self._get(s.Page[s.Job], "/v1/jobs", limit=limit, after=after, status=status, name=name)

    def cancel(self, id: str) -> s.Job:
        """Ask for the job's end. It stops within a step plus a grace."""
        return self._as(s.Job, self._request("POST", f"/v1/jobs/{id}/cancel"))

    def pause(self, id: str) -> s.Job:
        """Ask the job to rest: it saves a checkpoint after its step, and its worker is free."""
        return self._as(s.Job, self._request("POST", f"/v1/jobs/{id}/pause"))

    def resume(self, id: str) -> s.Job:
        """Let a paused job go on from its checkpoint."""
        return self._as(s.Job, self._request("POST", f"/v1/jobs/{id}/resume"))

    def save(self, id: str) -> s.Job:
        """Ask for a checkpoint after the step that is running."""
        return self._as(s.Job, self._request("POST", f"/v1/jobs/{id}/checkpoints"))

    def update(
        self,
        id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        priority: int | None = None,
    ) -> s.Job:
        """Rename a job, replace its metadata; move it in its queue while it waits."""
        change = {"name": name, "metadata": None if metadata is None else dict(metadata), "priority": priority}
        given = {key: value for key, value in change.items() if value is not None}
        return self._as(s.Job, self._request("PATCH", f"/v1/jobs/{id}", json=given))

    def delete(self, id: str) -> None:
        """Remove a job that has ended: records, files, streams."""
        self._request("DELETE", f"/v1/jobs/{id}")

    def fork(self, id: str, checkpoint: str | None = None, **changes: Any) -> s.Job:
        """A new job like this one whose student starts from one of its checkpoints (default: the newest).

        ``changes`` replace whole sections of the spec, e.g. ``name="again", recipe="gkd"``.
        """
        start = {"job": id, "checkpoint": checkpoint}
        return self.submit({**self.job(id).spec, "from": start, **changes})

    def wait(self, id: str, *, timeout_s: float | None = None, poll_s: float = 1.0) -> s.Job:
        """The job once it has ended. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (job := self.job(id)).terminal:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {id} is still {job.status} after {timeout_s:g} s")
            time.sleep(poll_s)
        return job

    def events(self, id: str, after: int | str | None = None, limit: int = 100) -> s.Page[s.Event]:
        """The audit log behind the sequence number ``after``."""
        return self._get(s.Page[s.Event], f"/v1/jobs/{id}/events", after=after, limit=limit)

    def attempts(self, id: str) -> s.Page[s.Attempt]:
        """How often the job was started and how each start ended."""
        return self._get(s.Page[s.Attempt], f"/v1/jobs/{id}/attempts")

    def log(self, id: str, attempt: int | None = None, tail: int | None = None) -> str:
        """What a trainer wrote to its log: the newest start's, or another's."""
        given = {key: value for key, value in {"attempt": attempt, "tail": tail}.items() if value is not None}
        return self._request("GET", f"/v1/jobs/{id}/logs", params=given).text


def _plain(spec: Spec) -> Any:
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, JobSpec) else dict(spec)
