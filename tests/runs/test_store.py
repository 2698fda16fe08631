import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from opd_core.recipes import resolve
from opd_core.runs import database, tables
from opd_core.runs.states import ACTIVE, TERMINAL, TRANSITIONS, InvalidTransition
from opd_core.runs.store import IdempotencyMismatch, JobNotFound, NothingToSave, RunStore
from opd_core.spec import JobSpec

LEASE = 30.0
MAX_RESTARTS = 3
SPEC = JobSpec.model_validate(
    {
        "name": "a job",
        "student": {"model": "demo/student"},
        "teacher": {"model": "demo/teacher"},
        "task": {"name": "demo/word-problems"},
    }
)
RESOLVED = resolve(SPEC)


def new_job(store, name="a job", **options):
    return store.create_job(SPEC.model_copy(update={"name": name}), RESOLVED, [], **options)


def running(store, lease_s=LEASE):
    """A job that a worker holds; (job id, attempt)."""
    job = new_job(store)
    claim = store.claim(job.id, "w1", lease_s)
    assert claim is not None
    return claim.job_id, claim.attempt


def history(store, job_id):
    return [event.type for event in store.list_events(job_id)[0]]


# --- the schema -----------------------------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_that_the_code_uses(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_processes_that_start_at_once_migrate_once(database_url):
    errors, gate = [], threading.Barrier(6)

    def start():
        gate.wait()
        try:
            engine = database.connect(database_url)
            database.migrate(engine)
            RunStore(engine).now()
            engine.dispose()
        except SQLAlchemyError as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_sqlite_runs_in_wal_mode_with_foreign_keys(tmp_path):
    engine = database.connect(f"sqlite:///{tmp_path}/sub/runs.db")
    with engine.connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    assert pragma == {"journal_mode": "wal", "busy_timeout": 30000, "foreign_keys": 1, "synchronous": 1}
    with pytest.raises(ValueError, match="OPD_DATABASE_URL"):
        database.connect("sqlite://")


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_a_new_job_is_queued_and_says_so(store):
    job = store.create_job(SPEC, RESOLVED, ["careful"])
    assert (job.status, job.desired_state, job.attempt, job.queue) == ("queued", "run", 0, "cpu")
    assert job.warnings == ["careful"]
    assert job.spec["method"] == {}
    assert job.resolved_spec["method"]["objective"]["route"] == "direct"
    assert abs(job.created_at - time.time()) < 60
    assert store.get_job(job.id) == job
    assert history(store, job.id) == ["created"]
    assert store.get_job("job_nope") is None
    with pytest.raises(JobNotFound):
        store.request_cancel("job_nope")


def test_pages_cover_all_jobs_newest_first_whatever_is_added_meanwhile(store):
    ids = [new_job(store, f"job {n}").id for n in range(5)]
    first, more = store.list_jobs(limit=2)
    assert more
    new_job(store, "late")
    second, _ = store.list_jobs(limit=2, after=first[-1].id)
    third, more = store.list_jobs(limit=2, after=second[-1].id)
    assert not more
    assert [job.id for job in first + second + third] == ids[::-1]
    store.request_cancel(ids[0])
    assert [job.id for job in store.list_jobs(status="cancelled")[0]] == [ids[0]]
    assert [job.name for job in store.list_jobs(name_contains="OB 3")[0]] == ["job 3"]
    assert store.list_jobs(name_contains="%")[0] == []
    assert store.count_by_status() == {"queued": 5, "cancelled": 1}


def test_an_idempotency_key_makes_one_job(store):
    job = new_job(store, idempotency=("me", "k", "hash"))
    assert new_job(store, idempotency=("me", "k", "hash")).id == job.id
    assert new_job(store, idempotency=("you", "k", "other")).id != job.id
    with pytest.raises(IdempotencyMismatch):
        new_job(store, idempotency=("me", "k", "other"))
    assert len(store.list_jobs()[0]) == 2


def test_two_requests_with_one_key_at_once_make_one_job(store):
    ids, gate = [], threading.Barrier(4)

    def submit():
        gate.wait()
        ids.append(new_job(store, idempotency=("me", "k", "hash")).id)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4
    assert len(set(ids)) == 1


# --- claims and fencing ---------------------------------------------------------------------------------------------


def test_of_many_workers_one_gets_the_job(store, database_url):
    job = new_job(store)
    engines = [database.connect(database_url) for _ in range(4)]
    claims, gate = [], threading.Barrier(len(engines))

    def work(engine, name):
        gate.wait()
        claims.append(RunStore(engine).claim(job.id, name, LEASE))

    threads = [threading.Thread(target=work, args=(engine, f"w{i}")) for i, engine in enumerate(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    assert [claim.attempt for claim in claims if claim] == [1]
    assert store.get_job(job.id).status == "preparing"


def test_a_claim_says_what_to_train(store):
    job = new_job(store)
    claim = store.claim(job.id, "w1", LEASE)
    assert claim.spec == job.resolved_spec
    assert JobSpec.model_validate(claim.spec).method_spec()
    assert (claim.attempt, claim.queue) == (1, "cpu")
    assert store.claim(job.id, "w2", LEASE) is None
    assert store.claim("job_nope", "w2", LEASE) is None


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_the_lease_is_renewed_in_every_active_status(store, status):
    job_id, attempt = running(store)
    with store._write() as connection:
        connection.execute(tables.jobs.update().values(status=status))
    assert store.beat(job_id, attempt, LEASE) == "run"


def test_a_worker_without_its_lease_changes_nothing(store):
    job_id, old = running(store, lease_s=-1)
    new = store.claim(job_id, "w2", LEASE).attempt
    assert new == old + 1
    before = store.get_job(job_id)
    assert store.beat(job_id, old, LEASE) is None
    assert store.set_phase(job_id, old, "training", "running") is False
    assert store.set_progress(job_id, old, {"step": 99}) is False
    assert store.set_accuracy(job_id, old, {"before": 0.5}) is False
    assert store.add_warning(job_id, old, "late") is False
    assert store.add_metrics(job_id, old, 1, {"loss": 1.0}) is False
    assert store.add_event(job_id, "info", "late", "late", attempt=old) is None
    assert store.add_checkpoint(job_id, old, name="c", step=1, kind="training", size_bytes=1, files=[]) is None
    assert store.prune_checkpoint(job_id, old, "c") is False
    assert store.requeue(job_id, old, crashed=True) is False
    assert store.finish(job_id, old, "succeeded") is False
    assert store.get_job(job_id) == before
    assert store.finish(job_id, new, "succeeded") is True


def test_a_terminal_status_is_reached_once(store):
    job_id, attempt = running(store)
    assert store.finish(job_id, attempt, "succeeded", report={"seed": 1}) is True
    assert store.finish(job_id, attempt, "failed", {"code": "x"}) is False
    assert store.beat(job_id, attempt, LEASE) is None
    job = store.get_job(job_id)
    assert (job.status, job.error, job.worker) == ("succeeded", None, None)
    assert job.finished_at is not None
    assert store.get_report(job_id) == {"seed": 1}
    assert store.claim(job_id, "w2", LEASE) is None
    with pytest.raises(ValueError, match="terminal"):
        store.finish(job_id, attempt, "running")


def test_a_failure_is_stored_whole(store):
    job_id, attempt = running(store)
    store.finish(job_id, attempt, "failed", {"code": "missing_column", "message": "no \x00 column", "category": "user"})
    assert store.get_job(job_id).error == {
        "code": "missing_column",
        "message": "no \x00 column",
        "param": None,
        "category": "user",
        "retryable": False,
    }
    assert store.list_events(job_id)[0][-1].message == "failed: no � column"


# --- cancel ---------------------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(store):
    job = store.request_cancel(new_job(store).id)
    assert (job.status, job.desired_state) == ("cancelled", "cancelled")
    assert job.finished_at is not None
    assert store.request_cancel(job.id) == job
    assert store.claim(job.id, "w1", LEASE) is None


def test_a_running_job_is_told_at_its_next_beat(store):
    job_id, attempt = running(store)
    assert store.request_cancel(job_id).status == "cancelling"
    assert store.request_cancel(job_id).status == "cancelling"
    assert store.beat(job_id, attempt, LEASE) == "cancelled"
    assert store.set_phase(job_id, attempt, "training", "running") is True
    assert store.get_job(job_id).status == "cancelling"
    assert store.finish(job_id, attempt, "cancelled") is True
    assert history(store, job_id) == ["created", "claimed", "cancel_requested", "finished"]


def test_an_accepted_cancel_wins_over_a_faster_trainer(store):
    job_id, attempt = running(store)
    store.request_cancel(job_id)
    assert store.finish(job_id, attempt, "succeeded", report={"seed": 1}) is True
    assert store.get_job(job_id).status == "cancelled"


def test_an_ended_job_cannot_be_cancelled(store):
    job_id, attempt = running(store)
    store.finish(job_id, attempt, "succeeded")
    with pytest.raises(InvalidTransition) as caught:
        store.request_cancel(job_id)
    assert caught.value.allowed == []


def test_a_cancelled_job_whose_worker_died_is_finished_by_the_reconciler(store):
    job_id, _ = running(store, lease_s=-1)
    store.request_cancel(job_id)
    assert store.claim(job_id, "w2", LEASE) is None
    assert store.due(30) == []
    assert store.get_job(job_id).status == "cancelled"
    assert store.list_attempts(job_id)[0].finished_at is not None


def test_a_waiting_job_with_a_cancel_intent_is_claimed_by_nobody_and_ended(store):
    job_id = new_job(store).id
    with store._write() as connection:
        connection.execute(tables.jobs.update().values(desired_state="cancelled"))
    assert store.claim(job_id, "w1", LEASE) is None
    assert store.due(30) == []
    assert store.get_job(job_id).status == "cancelled"


# --- crashes, drains, bells -----------------------------------------------------------------------------------------


def test_a_lost_worker_puts_the_job_back_in_the_queue(store):
    job_id, attempt = running(store, lease_s=-1)
    store.mark_rung(job_id)
    assert store.due(30) == [(job_id, "cpu")]
    job = store.get_job(job_id)
    assert (job.status, job.crashes, job.worker) == ("queued", 1, None)
    assert store.beat(job_id, attempt, LEASE) is None
    assert store.claim(job_id, "w2", LEASE).attempt == 2
    assert [row.reason for row in store.list_attempts(job_id)] == ["lease expired", None]
    assert history(store, job_id) == ["created", "claimed", "requeued", "claimed"]


@pytest.mark.parametrize("how", ["reconciler", "claim", "worker"])
def test_a_job_that_keeps_losing_its_worker_fails(store, how):
    job_id = new_job(store).id
    for lost in range(MAX_RESTARTS + 1):
        claim = store.claim(job_id, "w", -1)
        assert claim is not None, f"after {lost} lost workers"
        if how == "reconciler":
            store.due(30)
        elif how == "worker":
            assert store.requeue(job_id, claim.attempt, crashed=True) is True
    assert store.claim(job_id, "w", -1) is None
    store.due(30)
    job = store.get_job(job_id)
    assert job.status == "failed"
    assert job.error["code"] == "worker_lost"
    assert job.error["category"] == "system"
    assert job.attempt == MAX_RESTARTS + 1


def test_drains_are_not_crashes(store):
    job_id = new_job(store).id
    for _ in range(3 * MAX_RESTARTS):
        claim = store.claim(job_id, "w", LEASE)
        assert store.requeue(job_id, claim.attempt, crashed=False) is True
    job = store.get_job(job_id)
    assert (job.status, job.crashes, job.attempt) == ("queued", 0, 3 * MAX_RESTARTS)


def test_a_job_that_is_being_cancelled_is_not_requeued(store):
    job_id, attempt = running(store)
    store.request_cancel(job_id)
    assert store.requeue(job_id, attempt, crashed=False) is True
    assert store.get_job(job_id).status == "cancelled"


def rung_ago(store, seconds):
    """Pretend that every bell was rung so long ago."""
    with store._write() as connection:
        connection.execute(tables.jobs.update().values(rung_at=tables.db_now() - seconds))


def test_bells_are_rung_once_and_again_only_for_an_idle_worker(store):
    job_id = new_job(store).id
    bell = (job_id, "cpu")
    assert store.due(30) == [bell]
    assert store.due(30) == [bell]
    store.mark_rung(job_id)
    assert store.due(30) == []
    rung_ago(store, 40)
    store.heartbeat_worker("busy", "h", ["cpu"], 1, job_id="job_other")
    store.heartbeat_worker("elsewhere", "h", ["gpu"], 2)
    assert store.due(30) == []
    store.heartbeat_worker("idle", "h", ["gpu", "cpu"], 3)
    assert store.due(30) == [bell]
    assert store.due(60) == []


def test_a_bell_that_nobody_answers_is_rung_again_without_a_worker(store):
    job_id = new_job(store).id
    rung_ago(store, 301)
    assert store.due(31) == []
    assert store.due(30) == [(job_id, "cpu")]


def test_reconcilers_beside_each_other_count_a_crash_once(store, database_url):
    job_id, _ = running(store, lease_s=-1)
    engines = [database.connect(database_url) for _ in range(3)]
    gate = threading.Barrier(len(engines))

    def reconcile(engine):
        gate.wait()
        RunStore(engine).due(30)

    threads = [threading.Thread(target=reconcile, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    assert store.get_job(job_id).crashes == 1
    assert history(store, job_id).count("requeued") == 1


# --- what a worker reports ------------------------------------------------------------------------------------------


def test_progress_and_accuracy(store):
    job_id, attempt = running(store)
    store.set_phase(job_id, attempt, "training", "running")
    store.set_accuracy(job_id, attempt, {"type": "accuracy", "before": 0.25, "teacher": 1.0})
    store.set_progress(job_id, attempt, {"type": "progress", "step": 1, "loss": float("nan"), "accuracy": 0.5})
    store.set_progress(job_id, attempt, {"step": 2, "loss": 0.5, "accuracy": None})
    job = store.get_job(job_id)
    assert (job.status, job.phase) == ("running", "training")
    assert job.progress == {"step": 2, "loss": 0.5}
    assert job.accuracy == {"before": 0.25, "teacher": 1.0, "latest": 0.5}
    with pytest.raises(InvalidTransition):
        store.set_phase(job_id, attempt, "again", "paused")


def test_metrics_merge_within_an_attempt_and_are_replaced_by_a_higher_one(store):
    job_id, first = running(store)
    store.add_metrics(job_id, first, 1, {"loss": 1.0})
    store.add_metrics(job_id, first, 1, {"accuracy": 0.5})
    store.add_metrics(job_id, first, 2, {"loss": float("inf")})
    assert store.get_metrics(job_id) == [(1, {"loss": 1.0, "accuracy": 0.5}), (2, {"loss": None})]
    store.requeue(job_id, first, crashed=False)
    second = store.claim(job_id, "w2", LEASE).attempt
    store.add_metrics(job_id, second, 1, {"loss": 0.75})
    assert store.get_metrics(job_id) == [(1, {"loss": 0.75}), (2, {"loss": None})]
    assert store.get_metrics(job_id, from_step=2) == [(2, {"loss": None})]


def test_warnings_are_kept_once(store):
    job_id, attempt = running(store)
    store.add_warning(job_id, attempt, "careful")
    store.add_warning(job_id, attempt, "careful")
    assert store.get_job(job_id).warnings == ["careful"]


def test_events_count_without_gaps_whoever_writes_them(store, database_url):
    job_id, attempt = running(store)
    engines = [database.connect(database_url) for _ in range(3)]

    def write(engine):
        for n in range(15):
            RunStore(engine).add_event(job_id, "info", "note", f"{n}", {"n": n}, attempt=attempt)

    threads = [threading.Thread(target=write, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    events, more = store.list_events(job_id, limit=1000)
    assert [event.seq for event in events] == list(range(1, 2 + 1 + 3 * 15))
    assert not more
    page, more = store.list_events(job_id, after=2, limit=10)
    assert [event.seq for event in page] == list(range(3, 13))
    assert more
    with pytest.raises(JobNotFound):
        store.add_event("job_nope", "info", "note", "x")


def test_checkpoints_are_indexed_replaced_and_pruned(store):
    job_id, attempt = running(store)
    file = {"name": "m.safetensors", "size": 2**40, "sha256": "0" * 64}
    make = {"kind": "training", "size_bytes": 2**40, "files": [file]}
    first = store.add_checkpoint(job_id, attempt, name="step-1.a1", step=1, **make)
    second = store.add_checkpoint(job_id, attempt, name="step-2.a1", step=2, **make)
    assert store.get_job(job_id).latest_checkpoint == second.id
    again = store.add_checkpoint(job_id, attempt, name="step-2.a1", step=2, **make)
    assert [row.id for row in store.list_checkpoints(job_id)] == [first.id, again.id]
    assert again.files[0]["size"] == 2**40
    assert again.files[0]["id"] != first.files[0]["id"]
    assert store.prune_checkpoint(job_id, attempt, "step-2.a1") is True
    assert store.get_job(job_id).latest_checkpoint == first.id
    assert store.prune_checkpoint(job_id, attempt, "step-1.a1") is True
    assert store.get_job(job_id).latest_checkpoint is None


def test_the_story_of_an_attempt(store):
    job_id, attempt = running(store)
    store.start_attempt(job_id, attempt, host="h", pid=42)
    store.finish_attempt(job_id, attempt, signal=9, reason="killed")
    store.requeue(job_id, attempt, crashed=True)
    (row,) = store.list_attempts(job_id)
    assert (row.worker, row.host, row.pid, row.signal, row.reason) == ("w1", "h", 42, 9, "killed")
    assert row.finished_at >= row.started_at


def test_workers_come_and_go(store):
    store.heartbeat_worker("w1", "h", ["cpu"], 1, labels={"gpu": None})
    store.heartbeat_worker("w1", "h", ["cpu", "gpu"], 1, job_id="job_x")
    (worker,) = store.list_workers()
    assert (worker.queues, worker.job_id, worker.labels) == (["cpu", "gpu"], "job_x", {})
    assert 0 <= worker.age_s < 60
    store.remove_worker("w1")
    assert store.list_workers() == []


# --- any history ----------------------------------------------------------------------------------------------------

ACTIONS = st.sampled_from(
    [
        *("claim", "claim_expiring", "beat", "run", "finalize", "crash", "drain", "due", "succeed", "fail"),
        *("cancel", "pause", "resume", "save"),
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=14))
def test_whatever_happens_the_machine_holds(store, actions):
    job_id = new_job(store).id
    attempt, seen = 0, [store.get_job(job_id)]
    for action in actions:
        try:
            match action:
                case "claim" | "claim_expiring":
                    claim = store.claim(job_id, "w", LEASE if action == "claim" else -1)
                    attempt = claim.attempt if claim else attempt
                case "beat":
                    store.beat(job_id, attempt, LEASE)
                case "run":
                    store.set_phase(job_id, attempt, "training", "running")
                case "finalize":
                    store.set_phase(job_id, attempt, "finalizing", "finalizing")
                case "cancel":
                    store.request_cancel(job_id)
                case "pause":
                    store.request_pause(job_id)
                case "resume":
                    store.request_resume(job_id)
                case "save":
                    store.request_checkpoint(job_id)
                case "crash":
                    store.requeue(job_id, attempt, crashed=True)
                case "drain":
                    store.requeue(job_id, attempt, crashed=False)
                case "due":
                    store.due(30)
                case "succeed":
                    store.finish(job_id, attempt, "succeeded")
                case "fail":
                    store.finish(job_id, attempt, "failed", {"code": "x"})
        except (InvalidTransition, NothingToSave):
            pass
        seen.append(store.get_job(job_id))
    for before, after in pairwise(seen):
        # Any step may pass through the queue (an expired lease that is claimed again).
        assert after.status == before.status or after.status in TRANSITIONS[before.status]
        assert after.attempt in (before.attempt, before.attempt + 1)
        assert after.crashes >= before.crashes
        if before.status in TERMINAL:
            assert after == before
        if before.desired_state == "cancelled":
            assert after.status in {"cancelling", "cancelled", "failed"}
        assert after.status not in ("pausing", "paused") or after.desired_state == "pause"
        assert after.status != "queued" or after.desired_state == "run"
    events = store.list_events(job_id, limit=1000)[0]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    finished = [event for event in events if event.type == "finished"]
    assert len(finished) == (seen[-1].status in TERMINAL)
    claimed = [event.attempt for event in events if event.type == "claimed"]
    assert claimed == list(range(1, len(claimed) + 1))
    assert (seen[-1].finished_at is not None) == (seen[-1].status in TERMINAL)


def test_workers_of_one_name_may_come_at_the_same_moment(store):
    """Each would find no row of that name and insert one."""
    together = Barrier(2, timeout=60)

    def come(name):
        together.wait()
        store.heartbeat_worker(name, "h", ["cpu"], 1)

    names = [f"w{number}" for number in range(20)]
    with ThreadPoolExecutor(2) as pool:
        for name in names:
            list(pool.map(come, [name, name]))
    assert {worker.name for worker in store.list_workers()} == set(names)
