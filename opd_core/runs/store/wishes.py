"""What a user asks of a job: cancel, pause, resume, save now.

A wish is recorded and the worker converges. Where nobody works on the job it comes true at once. Asking twice changes
nothing. All raise JobNotFound, and InvalidTransition where the status machine has no way to what is asked for.
"""

from __future__ import annotations

from opd_core.runs.rows import Job
from opd_core.runs.states import ACTIVE, TERMINAL, TRAINABLE, InvalidTransition, require
from opd_core.runs.store.base import Base
from opd_core.runs.store.transaction import append_event, end_job, set_job, the_job


class NothingToSave(ValueError):
    """A checkpoint was asked of a job that is not training."""

    def __init__(self, status: str) -> None:
        super().__init__(
            f"a job that is {status} has nothing to save; possible while it is {', '.join(sorted(TRAINABLE))}"
        )


class Wishes(Base):
    """Recorded in ``desired_state`` and ``save_wanted``."""

    def request_cancel(self, job_id: str) -> Job:
        """Record the wish to cancel. Nobody works on a queued or paused job: it is cancelled at once.

        Asking twice changes nothing. Raises JobNotFound, or InvalidTransition for a succeeded or failed job.
        """
        with self._write() as connection:
            job = the_job(connection, job_id, lock=True)
            if job.status in ("cancelled", "cancelling"):
                return job
            if job.status in TERMINAL:
                raise InvalidTransition(job.status, "cancelled")
            if job.status in ACTIVE:
                set_job(
                    connection, job_id, status="cancelling", desired_state="cancelled", phase="stopping the trainer"
                )
                append_event(connection, job_id, "info", "cancel_requested", "cancel requested")
            else:
                set_job(connection, job_id, desired_state="cancelled")
                end_job(connection, job, "cancelled")
            return the_job(connection, job_id)

    def request_pause(self, job_id: str) -> Job:
        """Record the wish to pause: the trainer saves a checkpoint after its step and the worker is free.

        A queued job is held back at once.
        """
        with self._write() as connection:
            job = the_job(connection, job_id, lock=True)
            if job.status in ("paused", "pausing"):
                return job
            if job.status == "queued":
                set_job(connection, job_id, status="paused", desired_state="pause", phase="paused")
                append_event(connection, job_id, "info", "paused", "held back before it was started")
            else:
                require(job.status, "pausing")
                set_job(connection, job_id, status="pausing", desired_state="pause", phase="saving a checkpoint")
                append_event(connection, job_id, "info", "pause_requested", "pause requested")
            return the_job(connection, job_id)

    def request_resume(self, job_id: str) -> Job:
        """Take a pause back: a paused job is queued (ring its bell), one that is still pausing goes on.

        A job that was not paused stays as it is.
        """
        with self._write() as connection:
            job = the_job(connection, job_id, lock=True)
            if job.status == "cancelling" or job.status in TERMINAL:
                raise InvalidTransition(job.status, "queued")
            if job.desired_state == "run":
                return job
            if job.status == "paused":
                set_job(connection, job_id, status="queued", phase="waiting for a worker", rung_at=None)
            elif job.status == "pausing":
                set_job(connection, job_id, status="running", phase="training")
            set_job(connection, job_id, desired_state="run")
            append_event(connection, job_id, "info", "resume_requested", "resume requested")
            return the_job(connection, job_id)

    def request_checkpoint(self, job_id: str) -> Job:
        """Record the wish for a checkpoint at the next step. Raises NothingToSave while the job is not training."""
        with self._write() as connection:
            job = the_job(connection, job_id, lock=True)
            if job.status not in TRAINABLE:
                raise NothingToSave(job.status)
            if not job.save_wanted:
                set_job(connection, job_id, save_wanted=True)
                append_event(connection, job_id, "info", "checkpoint_requested", "checkpoint requested")
            return the_job(connection, job_id)
