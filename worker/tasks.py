"""The doorbell's answer: claim the job, or leave. Every guard returns: a bell may be late, doubled or stray."""

from __future__ import annotations

import os
import time
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from opd_core.runs import database
from opd_core.runs.ids import is_id
from opd_core.runs.live import LiveWriter
from opd_core.runs.queue import TASK_NAME
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from worker.app import app
from worker.disk import WAITING, Disks
from worker.slot import SLOT
from worker.supervisor import NO_TRAINER, Supervisor

log = structlog.get_logger()

_REST_S = 60.0
_rests_until = 0.0  # on the monotonic clock: this worker could not start a trainer a moment ago


@app.task(name=TASK_NAME, bind=True)
def run_job(self: Any, job_id: str) -> None:
    """Train one job if it is to be had. The message carries nothing but its id."""
    global _rests_until
    if not isinstance(job_id, str) or not is_id(job_id):
        log.warning("bell_without_job_id")
        return
    if SLOT.draining():
        log.info("bell_while_draining", job_id=job_id)
        return
    settings = Settings()
    engine = database.connect(settings.database_url)  # here, not at import: this process was forked
    live = LiveWriter(settings.redis_url)
    try:
        store = RunStore(engine)
        if full := Disks(settings).too_full_to_start():
            log.warning("bell_while_disk_is_full", job_id=job_id, detail=full)
            store.keep_waiting(job_id, WAITING, full)
            return
        if time.monotonic() < _rests_until:  # or it would touch every job of the queue
            log.warning("bell_while_no_trainer_starts", job_id=job_id)
            store.keep_waiting(job_id, NO_TRAINER, f"it could not start one on {self.request.hostname} a moment ago")
            return
        claim = store.claim_next(job_id, self.request.hostname, settings.lease_s)
        if claim is None:
            log.info("bell_ignored", job_id=job_id)
            return
        with SLOT.occupied_by(claim.job_id), bound_contextvars(**_asked_by(store, claim.job_id)):
            supervisor = Supervisor(
                claim, store, live, settings, draining=SLOT.draining, default_threads=_threads_of_this_worker()
            )
            if supervisor.run().later is NO_TRAINER:
                _rests_until = time.monotonic() + _REST_S
    finally:
        live.close()
        engine.dispose()


def _asked_by(store: RunStore, job_id: str) -> dict[str, str]:
    """The id of the request that submitted the job, so that one search finds it in every log."""
    created = store.events_of(job_id, ["created"])
    return {"request_id": created[0].data["request_id"]} if created and "request_id" in created[0].data else {}


def _threads_of_this_worker() -> int | None:
    """OPD_TRAINER_THREADS: the operator's answer to ``resources.threads: auto``."""
    value = os.environ.get("OPD_TRAINER_THREADS")
    if not value:
        return None
    if not value.isdigit() or int(value) < 1:
        raise ValueError(f"OPD_TRAINER_THREADS: {value!r} is not a number of threads; use 1 or more, or unset it")
    return int(value)
