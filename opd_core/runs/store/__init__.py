"""The run records: every read and write of jobs, attempts, events, metrics, checkpoints and workers.

The rules that make a job survive its workers:

- a claim is one compare-and-set that takes a lease and raises ``attempt``, the fencing token;
- every later write of a worker carries its ``attempt`` and does nothing (False or None) once another attempt, the
  reconciler or a terminal status has taken the job away from it;
- crashes are counted apart from attempts: a drained or resumed job may be claimed any number of times;
- bells of one queue are all alike: whoever hears one takes the most urgent job that waits there;
- a terminal status is reached once.

Status changes write their own events (created, claimed, pause_requested, paused, requeued, finished...). Each part of
the store is a file; callers know the one class that has them all.
"""

from opd_core.runs.store.attempts import Attempts
from opd_core.runs.store.checkpoints import Checkpoints
from opd_core.runs.store.events import Events
from opd_core.runs.store.jobs import IDEMPOTENCY_S as IDEMPOTENCY_S
from opd_core.runs.store.jobs import Idempotency as Idempotency
from opd_core.runs.store.jobs import IdempotencyMismatch as IdempotencyMismatch
from opd_core.runs.store.jobs import Jobs
from opd_core.runs.store.jobs import NotWaiting as NotWaiting
from opd_core.runs.store.leases import Leases
from opd_core.runs.store.progress import Progress
from opd_core.runs.store.quota import QueueFull as QueueFull
from opd_core.runs.store.quota import Quota as Quota
from opd_core.runs.store.transaction import JobNotFound as JobNotFound
from opd_core.runs.store.transaction import Level as Level
from opd_core.runs.store.wishes import NothingToSave as NothingToSave
from opd_core.runs.store.wishes import Wishes
from opd_core.runs.store.workers import WORKER_ALIVE_S as WORKER_ALIVE_S


class RunStore(Jobs, Wishes, Leases, Progress, Events, Checkpoints, Attempts):
    """Every record of every run. Thread-safe; make its engine after a fork."""
