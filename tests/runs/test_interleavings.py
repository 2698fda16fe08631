"""Two workers, a user, a reconciler and a clock that jumps, in any order: what must hold whatever happens.

Expired leases are written into the database, so nothing here waits or depends on the machine's speed. A worker that
lost its lease does not know it and goes on writing: that is what fencing is for.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from opd_core.recipes import resolve
from opd_core.runs import database
from opd_core.runs import tables as t
from opd_core.runs.states import ACTIVE, TERMINAL, InvalidTransition
from opd_core.runs.store import NothingToSave
from opd_core.spec import JobSpec
from tests.runs.test_store import LEASE, SPEC, history

WORKERS = ("first", "second")
WRITES = ("phase", "progress", "metrics", "warning", "accuracy", "checkpoint", "event", "beat")
ENDS = ("crash", "drain", "succeed", "fail")
WISHES = ("cancel", "pause", "resume", "save", "urgent")
# Often enough a job changes hands: a claim, a clock that jumps, another claim, and then the first worker writes.
ACTIONS = st.sampled_from(
    [
        *(12 * [("clock", "")]),
        *(3 * [("reconciler", "")]),
        *(("user", wish) for wish in WISHES),
        *((name, action) for name in WORKERS for action in (*(8 * ["claim"]), *WRITES, *ENDS)),
    ]
)


class Worker:
    """Believes what its last claim told it."""

    def __init__(self, store, name):
        self.store, self.name = store, name
        self.claim = None

    def write(self, kind):
        """Whether the store took it."""
        job_id, attempt = self.claim.job_id, self.claim.attempt
        match kind:
            case "phase":
                return self.store.set_phase(job_id, attempt, f"phase of {attempt}")
            case "progress":
                return self.store.set_progress(job_id, attempt, {"step": attempt})
            case "metrics":
                return self.store.add_metrics(job_id, attempt, 1, {"attempt": attempt})
            case "warning":
                return self.store.add_warning(job_id, attempt, f"warning of {attempt}")
            case "accuracy":
                return self.store.set_accuracy(job_id, attempt, {"before": float(attempt)})
            case "checkpoint":
                name = f"step-000001.a{attempt}"
                added = self.store.add_checkpoint(
                    job_id, attempt, name=name, step=1, kind="training", size_bytes=0, files=[]
                )
                return added is not None
            case "event":
                return self.store.add_event(job_id, "info", "said", "x", attempt=attempt) is not None
            case "beat":
                return self.store.beat(job_id, attempt, LEASE) is not None

    def end(self, kind):
        job_id, attempt = self.claim.job_id, self.claim.attempt
        match kind:
            case "crash" | "drain":
                return self.store.requeue(job_id, attempt, crashed=kind == "crash")
            case "succeed":
                return self.store.finish(job_id, attempt, "succeeded", report={"attempt": attempt})
            case "fail":
                return self.store.finish(job_id, attempt, "failed", {"code": "x", "message": "x"})


def content(store, job_id):
    """Everything that a worker can write, as it is."""
    job = store.get_job(job_id)
    rows = [job.phase, job.progress, job.warnings, job.accuracy, job.latest_checkpoint, job.status, job.desired_state]
    return [*rows, store.get_metrics(job_id), store.list_checkpoints(job_id), store.get_report(job_id)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, min_size=15, max_size=40), max_restarts=st.integers(0, 3))
def test_one_holder_rising_attempts_one_end_and_no_late_write(store, actions, max_restarts):
    forget_all(store)
    spec = JobSpec.model_validate(SPEC.model_dump(mode="json") | {"schedule": {"max_restarts": max_restarts}})
    job_id = store.create_job(spec, resolve(spec)).id
    workers = {name: Worker(store, name) for name in WORKERS}
    attempts, ended = [], None
    for who, what in actions:
        before = store.get_job(job_id)
        if who == "clock":
            with database.writer(store.engine).begin() as connection:
                connection.execute(update(t.jobs).where(t.jobs.c.lease_until.is_not(None)).values(lease_until=0.0))
        elif who == "reconciler":
            store.due(30)
        elif who == "user":
            wish(store, job_id, what)
        elif what == "claim":
            worker, free = workers[who], before.status == "queued" or lease_of(store, job_id) == 0.0
            if (claim := store.claim_next(job_id, who, LEASE)) is not None:
                assert not attempts or claim.attempt > attempts[-1]
                assert free, "two hold one lease"
                assert before.desired_state == "run"
                attempts.append(claim.attempt)
                worker.claim = claim
                assert store.get_job(job_id).worker == who
        elif (worker := workers[who]).claim is not None:
            holds = before.attempt == worker.claim.attempt and before.status in ACTIVE
            old = content(store, job_id)
            taken = worker.write(what) if what in WRITES else worker.end(what)
            late = worker.claim.attempt < before.attempt
            # Events alone are also taken from the last attempt after its end: they tell how it ended.
            assert taken == holds or (what == "event" and not late)
            if not taken:
                assert content(store, job_id) == old
        job = store.get_job(job_id)
        assert job.attempt == (attempts[-1] if attempts else 0)
        assert (job.worker is not None) == (job.status in ACTIVE) == (lease_of(store, job_id) is not None)
        assert job.crashes <= job.max_restarts or job.status == "failed"
        if ended is not None:
            assert (job.status, job.finished_at, job.error) == ended
        elif job.status in TERMINAL:
            ended = (job.status, job.finished_at, job.error)
        assert open_attempts(store, job_id) == ([job.attempt] if job.status in ACTIVE else [])
    assert history(store, job_id).count("finished") == (ended is not None)
    for metric in store.get_metrics(job_id):
        assert metric[1]["attempt"] in attempts


def wish(store, job_id, what):
    job = store.get_job(job_id)
    try:
        match what:
            case "cancel":
                store.request_cancel(job_id)
            case "pause":
                store.request_pause(job_id)
            case "resume":
                store.request_resume(job_id)
            case "save":
                store.request_checkpoint(job_id)
            case "urgent":
                store.update_job(job_id, priority=5)
    except (InvalidTransition, NothingToSave, ValueError):
        assert store.get_job(job_id) == job  # a refusal changes nothing


def forget_all(store):
    """What the examples before this one have left would be claimed too."""
    with database.writer(store.engine).begin() as connection:
        connection.execute(t.jobs.delete())


def lease_of(store, job_id):
    with store.engine.connect() as connection:
        return connection.execute(select(t.jobs.c.lease_until).where(t.jobs.c.id == job_id)).scalar_one()


def open_attempts(store, job_id):
    return [row.attempt for row in store.list_attempts(job_id) if row.finished_at is None]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    priorities=st.lists(st.integers(-10, 10), min_size=1, max_size=6),
    bells=st.lists(st.integers(0, 5), max_size=12),
)
def test_no_job_is_passed_over_for_ever(store, priorities, bells):
    """Bells may be lost, doubled or mixed up: with as many as there are jobs, the most urgent have been taken."""
    forget_all(store)
    ids = []
    for priority in priorities:
        spec = JobSpec.model_validate(SPEC.model_dump(mode="json") | {"priority": priority})
        ids.append(store.create_job(spec, resolve(spec)).id)
    taken = [store.claim_next(ids[bell % len(ids)], "w", LEASE) for bell in bells]
    expected = [job_id for _, job_id in sorted(zip([-priority for priority in priorities], ids, strict=True))]
    assert [claim.job_id for claim in taken if claim] == expected[: len(bells)]
    with store.engine.connect() as connection:
        waiting = connection.execute(select(func.count()).where(t.jobs.c.status == "queued")).scalar_one()
    assert waiting == max(0, len(ids) - len(bells))
