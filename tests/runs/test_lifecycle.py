"""Pause, resume, save now, rename, delete; queues and recent attempts; the migration of older databases."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from opd_core.runs import database
from opd_core.runs.states import InvalidTransition
from opd_core.runs.store import JobNotFound, NothingToSave, RunStore
from tests.runs.test_store import LEASE, MAX_RESTARTS, history, new_job, running


def training(store):
    job_id, attempt = running(store)
    store.set_phase(job_id, attempt, "training", "running")
    return job_id, attempt


def test_a_queued_job_is_held_back_at_once_and_claimed_again_only_after_a_resume(store):
    job_id = new_job(store).id
    store.mark_rung(job_id)
    paused = store.request_pause(job_id)
    assert (paused.status, paused.desired_state) == ("paused", "pause")
    assert store.request_pause(job_id) == paused
    assert store.claim(job_id, "w", LEASE) is None
    assert store.due(0.0) == []
    resumed = store.request_resume(job_id)
    assert (resumed.status, resumed.desired_state) == ("queued", "run")
    assert store.request_resume(job_id) == resumed
    assert store.due(30) == [(job_id, "cpu")]  # its bell counts as not rung
    assert store.claim(job_id, "w", LEASE).attempt == 1
    assert history(store, job_id) == ["created", "paused", "resume_requested", "claimed"]


def test_a_running_job_rests_once_its_worker_gives_it_back(store):
    job_id, attempt = training(store)
    assert store.request_pause(job_id).status == "pausing"
    assert store.request_pause(job_id).status == "pausing"
    assert store.beat(job_id, attempt, LEASE) == "pause"
    store.set_phase(job_id, attempt, "training", "running")  # said before the trainer heard of it
    assert store.get_job(job_id).status == "pausing"
    assert store.requeue(job_id, attempt, crashed=False) is True
    job = store.get_job(job_id)
    assert (job.status, job.crashes, job.worker) == ("paused", 0, None)
    assert store.due(0.0) == []
    store.request_resume(job_id)
    assert store.claim(job_id, "w2", LEASE).attempt == attempt + 1
    assert history(store, job_id)[2:] == ["pause_requested", "paused", "resume_requested", "claimed"]


def test_a_pause_that_is_taken_back_in_time_changes_nothing(store):
    job_id, attempt = training(store)
    store.request_pause(job_id)
    assert store.request_resume(job_id).status == "running"
    assert store.beat(job_id, attempt, LEASE) == "run"
    assert store.finish(job_id, attempt, "succeeded") is True


def test_a_pause_that_is_taken_back_too_late_puts_the_job_in_the_queue(store):
    job_id, attempt = training(store)
    store.request_pause(job_id)
    store.request_resume(job_id)
    store.requeue(job_id, attempt, crashed=False)  # the trainer had stopped already
    assert store.get_job(job_id).status == "queued"


def test_a_run_that_finishes_before_its_pause_has_succeeded(store):
    job_id, attempt = training(store)
    store.request_pause(job_id)
    store.set_phase(job_id, attempt, "finalizing", "finalizing")
    assert store.finish(job_id, attempt, "succeeded") is True
    assert store.get_job(job_id).status == "succeeded"


def test_a_pausing_job_that_loses_its_worker_rests_and_the_loss_is_counted(store):
    job_id = running(store, lease_s=-1)[0]
    store.request_pause(job_id)
    assert store.claim(job_id, "w2", LEASE) is None
    assert store.due(0.0) == []
    job = store.get_job(job_id)
    assert (job.status, job.crashes) == ("paused", 1)
    for _ in range(MAX_RESTARTS):
        store.request_resume(job_id)
        store.claim(job_id, "w", -1)
        store.request_pause(job_id)
        store.due(0.0)
    assert store.get_job(job_id).status == "failed"


def test_cancel_goes_before_pause(store):
    job_id, attempt = training(store)
    store.request_pause(job_id)
    assert store.request_cancel(job_id).status == "cancelling"
    with pytest.raises(InvalidTransition):
        store.request_pause(job_id)
    with pytest.raises(InvalidTransition):
        store.request_resume(job_id)
    store.requeue(job_id, attempt, crashed=False)
    assert store.get_job(job_id).status == "cancelled"
    held_back = new_job(store).id
    store.request_pause(held_back)
    assert store.request_cancel(held_back).status == "cancelled"


@pytest.mark.parametrize("status", ["finalizing", "succeeded", "failed"])
def test_what_cannot_be_paused_says_what_can_be_done(store, status):
    job_id, attempt = training(store)
    if status == "finalizing":
        store.set_phase(job_id, attempt, "finalizing", "finalizing")
    else:
        store.finish(job_id, attempt, status)
    with pytest.raises(InvalidTransition, match=f"a job that is {status} cannot become pausing"):
        store.request_pause(job_id)


def test_a_wished_checkpoint_is_fulfilled_by_the_next_one(store):
    job_id, attempt = training(store)
    assert store.request_checkpoint(job_id).save_wanted is True
    store.request_checkpoint(job_id)
    assert history(store, job_id).count("checkpoint_requested") == 1
    store.add_checkpoint(job_id, attempt, name="step-1.a1", step=1, kind="training", size_bytes=0, files=[])
    assert store.get_job(job_id).save_wanted is False
    assert store.request_checkpoint(job_id).save_wanted is True
    queued = new_job(store).id
    with pytest.raises(NothingToSave, match="a job that is queued has nothing to save"):
        store.request_checkpoint(queued)


def test_name_and_metadata_change_and_the_spec_does_not(store):
    job = new_job(store)
    changed = store.update_job(job.id, name="another name", metadata={"team": "red"})
    assert (changed.name, changed.metadata) == ("another name", {"team": "red"})
    assert (changed.spec, changed.resolved_spec) == (job.spec, job.resolved_spec)
    assert store.update_job(job.id, metadata={}).metadata == {}
    assert store.get_job(job.id).name == "another name"
    assert store.list_jobs(name_contains="another")[0] != []
    assert history(store, job.id) == ["created", "updated", "updated"]
    with pytest.raises(JobNotFound):
        store.update_job("job_nope", name="x")


def test_a_deleted_job_leaves_no_row_behind(store):
    job_id, attempt = training(store)
    new_job(store, "stays", idempotency=("me", "k", "hash"))
    store.add_metrics(job_id, attempt, 1, {"loss": 1.0})
    store.add_checkpoint(job_id, attempt, name="step-1.a1", step=1, kind="training", size_bytes=0, files=[])
    with pytest.raises(InvalidTransition, match="cannot become deleted"):
        store.delete_job(job_id)
    assert store.get_metrics(job_id) != []
    store.finish(job_id, attempt, "succeeded")
    store.delete_job(job_id)
    assert store.get_job(job_id) is None
    with store.engine.connect() as connection:
        for table in ("attempts", "events", "metrics", "checkpoints"):
            query = text(f"SELECT count(*) FROM {table} WHERE job_id = :id")
            assert connection.execute(query, {"id": job_id}).scalar_one() == 0, table
    assert [job.name for job in store.list_jobs()[0]] == ["stays"]
    with pytest.raises(JobNotFound):
        store.delete_job(job_id)


def test_queues_count_what_is_not_over(store):
    assert store.count_by_queue() == {}
    training(store)
    store.request_pause(new_job(store).id)
    store.request_cancel(new_job(store).id)
    new_job(store)
    counts = store.count_by_queue()["cpu"]
    assert (counts.waiting, counts.running, counts.paused) == (1, 1, 1)
    assert 0 <= counts.oldest_s < 60


def test_the_lease_that_a_worker_shows_is_its_own(store):
    job_id, attempt = training(store)
    for name in ("w1", "w2"):
        store.heartbeat_worker(name, "h", ["cpu"], 1, job_id=job_id)
    first, second = store.list_workers()
    assert LEASE - 5 < first.lease_left_s <= LEASE
    assert second.lease_left_s is None
    store.requeue(job_id, attempt, crashed=False)
    assert store.list_workers()[0].lease_left_s is None


def test_attempts_that_ended_badly(store):
    ends = {"drained (exit code 75)": False, "exit code 1": True, "killed by SIGKILL": True, "succeeded": False}
    for reason in ends:
        job_id, attempt = running(store)
        store.finish_attempt(job_id, attempt, reason=reason)
    running(store)  # not over
    lost, _ = running(store, lease_s=-1)
    store.due(30)
    recent = store.list_recent_attempts()
    assert [row.reason for row in recent] == ["lease expired", None, *reversed(ends)]
    failed = store.list_recent_attempts(failed=True)
    assert [row.reason for row in failed] == ["lease expired", "killed by SIGKILL", "exit code 1"]
    assert failed[0].job_id == lost
    assert len(store.list_recent_attempts(1, failed=True)) == 1


def test_an_older_database_keeps_its_jobs_and_their_metadata(database_url):
    engine = database.connect(database_url)
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with database.writer(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO jobs (id, name, recipe, queue, status, phase, desired_state, attempt, crashes, created_at,"
                " event_seq, spec, resolved_spec, progress, accuracy, warnings) VALUES ('job_old', 'old', 'gkd', 'cpu',"
                " 'succeeded', 'succeeded', 'run', 1, 0, 0, 0, :spec, '{}', '{}', '{}', '[]')"
            ),
            {"spec": '{"metadata": {"team": "red"}}'},
        )
    database.migrate(engine)
    store = RunStore(engine)
    job = store.get_job("job_old")
    assert [found.id for found in store.list_jobs(metadata={"team": "red"})[0]] == ["job_old"]
    engine.dispose()
    assert (job.metadata, job.save_wanted) == ({"team": "red"}, False)
