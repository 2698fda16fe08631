"""What can be done with a job, and the fleet, as the fake service answers."""

from __future__ import annotations

from functools import cache
from typing import Any

from opd_core.spec import JobSpec, MethodSpec

Json = dict[str, Any]

# verb -> the statuses it is allowed in, and what becomes of the job at once
_VERBS: dict[str, tuple[tuple[str, ...], Json]] = {
    "cancel": (("queued", "preparing", "running", "paused"), {"status": "cancelled", "desired_state": "cancelled"}),
    "pause": (("queued", "preparing", "running"), {"status": "paused", "desired_state": "pause"}),
    "resume": (("paused",), {"status": "running", "desired_state": "run"}),
    "checkpoints": (("running",), {"save_wanted": True}),
}


def done_with(job: Json, verb: str) -> bool:
    """Whether the wish is granted; changes the job."""
    allowed, change = _VERBS[verb]
    if job["status"] not in allowed:
        return False
    job |= change
    return True


@cache
def schema() -> Json:
    """The real one: the form is made from it."""
    return {"object": "schema", "job": JobSpec.model_json_schema(), "method": MethodSpec.model_json_schema()}


def workers(start: str, job_id: str) -> list[Json]:
    """One that works, one that is idle, one that fell silent."""
    common = {"object": "worker", "host": "node-1", "labels": {"cores": 2}, "started_at": start, "seen_at": start}
    return [
        common | {"name": "cpu0@node-1", "pid": 11, "queues": ["cpu"], "job_id": job_id, "alive": True, "age_s": 2.0,
                  "lease_left_s": 24.0},
        common | {"name": "cpu1@node-1", "pid": 12, "queues": ["cpu", "aside"], "alive": True, "age_s": 3.0},
        common | {"name": "gpu0@node-2", "pid": 13, "queues": ["gpu"], "alive": False, "age_s": 7300.0},
    ]  # fmt: skip


def queues() -> list[Json]:
    """One that is served, one that nobody serves."""
    common = {"object": "queue", "running": 0, "paused": 0}
    return [
        common | {"name": "cpu", "waiting": 1, "running": 1, "workers": 2, "oldest_s": 42.0},
        common | {"name": "gpu", "waiting": 2, "workers": 0, "oldest_s": 4000.0},
    ]


def failures(start: str, job_id: str, hostile: str) -> list[Json]:
    """A crash, with words that the trainer chose."""
    common = {"object": "attempt", "job_id": job_id, "worker": "cpu0@node-1", "host": "node-1", "pid": 4711}
    ended = {"started_at": start, "finished_at": start}
    return [
        common | ended | {"attempt": 2, "signal": 9, "reason": "killed by SIGKILL"},
        common | ended | {"attempt": 1, "exit_code": 1, "reason": f"exit code 1 {hostile}"},
    ]
