"""Who goes first, and how often a lost job is started again."""

import threading

import pytest
from pydantic import ValidationError
from sqlalchemy import update

from opd_core.recipes import resolve
from opd_core.runs import database
from opd_core.runs import tables as t
from opd_core.runs.store import NotWaiting, RunStore
from opd_core.spec import JobSpec
from tests.runs.test_store import LEASE, SPEC, history


def job_of(store, **sections):
    spec = JobSpec.model_validate(SPEC.model_dump(mode="json") | sections)
    return store.create_job(spec, resolve(spec))


def test_every_bell_of_a_queue_takes_the_most_urgent_job_that_waits_there(store):
    calm = job_of(store).id
    later = job_of(store, priority=7).id
    urgent = job_of(store, priority=7).id
    elsewhere = job_of(store, priority=10, resources={"queue": "gpu"}).id
    patient = job_of(store, priority=-3).id
    held_back = job_of(store, priority=9).id
    store.request_pause(held_back)
    bells = [patient, patient, calm, urgent, calm]
    taken = [store.claim_next(bell, f"w{n}", LEASE) for n, bell in enumerate(bells)]
    assert [claim and claim.job_id for claim in taken] == [later, urgent, calm, patient, None]
    assert store.claim_next(elsewhere, "w", LEASE).job_id == elsewhere
    assert store.claim_next("job_nope", "w", LEASE) is None


def test_a_bell_still_takes_its_own_job_after_an_expired_lease(store):
    job_id = job_of(store).id
    assert store.claim(job_id, "w1", -1).attempt == 1
    assert store.claim_next(job_id, "w2", LEASE).attempt == 2


def test_bells_are_rung_for_the_most_urgent_first(store):
    ids = [job_of(store, priority=priority).id for priority in (0, 3, -1, 3)]
    assert [job_id for job_id, _ in store.due(30)] == [ids[1], ids[3], ids[0], ids[2]]


def test_priority_changes_while_the_job_waits_and_not_later(store):
    first, second = job_of(store).id, job_of(store).id
    assert store.update_job(second, priority=1).priority == 1
    assert store.claim_next(first, "w", LEASE).job_id == second
    with pytest.raises(NotWaiting, match="the priority of a job that is preparing means nothing"):
        store.update_job(second, priority=2)
    assert store.update_job(second, name="renamed").priority == 1
    store.request_pause(first)
    assert store.update_job(first, priority=-10).priority == -10
    assert history(store, first) == ["created", "paused", "updated"]


@pytest.mark.parametrize("priority", [11, -11, 0.5, "high"])
def test_a_priority_out_of_range_is_refused(priority):
    with pytest.raises(ValidationError, match="priority"):
        JobSpec.model_validate(SPEC.model_dump(mode="json") | {"priority": priority})


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_job_is_started_again_as_often_as_it_asks_for(store, limit):
    job_id = job_of(store, schedule={"max_restarts": limit}).id
    starts = 0
    while (claim := store.claim(job_id, "w", LEASE)) is not None:
        starts += 1
        store.requeue(job_id, claim.attempt, crashed=True, reason="killed by SIGKILL")
    assert starts == limit + 1
    error = store.get_job(job_id).error
    assert (error["code"], error["param"], error["retryable"]) == ("worker_lost", "schedule.max_restarts", True)
    assert error["message"] == (
        f"the job was lost {limit + 1} times and schedule.max_restarts is {limit}; the last time: killed by SIGKILL"
    )


def test_the_last_loss_gives_the_job_its_error(store):
    job_id = job_of(store, schedule={"max_restarts": 0}).id
    claim = store.claim(job_id, "w", LEASE)
    named = {"code": "out_of_memory", "message": "memory ran out", "category": "resource", "retryable": True}
    store.requeue(job_id, claim.attempt, crashed=True, reason="out_of_memory", error=named)
    error = store.get_job(job_id).error
    assert (error["code"], error["category"]) == ("out_of_memory", "resource")
    assert error["message"].endswith("the last time: memory ran out")


def test_what_waits_for_something_is_not_rung_for_at_once(store):
    job_id = job_of(store).id
    claim = store.claim(job_id, "w", LEASE)
    store.requeue(job_id, claim.attempt, crashed=False, later="waiting for disk space")
    assert store.get_job(job_id).phase == "waiting for disk space"
    store.heartbeat_worker("w", "host", ["cpu"], 1)
    assert store.due(30) == []
    assert store.due(-1) == [(job_id, "cpu")]


def test_a_queued_job_says_once_what_it_waits_for(store):
    job_id = job_of(store).id
    assert store.keep_waiting(job_id, "waiting for disk space", "5 MB are free") is True
    assert store.keep_waiting(job_id, "waiting for disk space", "4 MB are free") is True
    assert store.get_job(job_id).phase == "waiting for disk space"
    assert history(store, job_id) == ["created", "waiting"]
    store.claim(job_id, "w", LEASE)
    assert store.keep_waiting(job_id, "waiting for disk space", "3 MB are free") is False
    assert store.keep_waiting("job_nope", "x", "y") is False


def test_a_clock_that_was_set_back_does_not_silence_the_bell(store):
    job_id = job_of(store).id
    store.mark_rung(job_id)
    store.heartbeat_worker("w", "host", ["cpu"], 1)
    assert store.due(30) == []
    with database.writer(store.engine).begin() as connection:
        connection.execute(update(t.jobs).values(rung_at=t.db_now() + 3600))
    assert store.due(30) == [(job_id, "cpu")]


def test_workers_that_hear_bells_at_once_take_a_job_each(store, database_url):
    ids = {job_of(store, priority=n % 3).id for n in range(6)}
    taken, gate = [], threading.Barrier(len(ids))

    def answer(n):
        engine = database.connect(database_url)
        gate.wait()
        claim = RunStore(engine).claim_next(next(iter(ids)), f"w{n}", LEASE)
        taken.append(claim and claim.job_id)
        engine.dispose()

    threads = [threading.Thread(target=answer, args=(n,)) for n in range(len(ids))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)
