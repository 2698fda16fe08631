"""Keeping a lease."""

from __future__ import annotations

import errno
import time

import pytest
from sqlalchemy.exc import OperationalError

from tests.waiting import wait_until
from tests.worker.conftest import Bench
from worker.lease import LeaseKeeper

LONG = 1000.0


def test_wish_to_cancel_is_seen_between_beats(bench: Bench) -> None:
    claim = bench.claim(job := bench.submit())
    with LeaseKeeper(bench.store, job.id, claim.attempt, LONG, watch_s=0.05) as lease:
        bench.store.request_cancel(job.id)
        wait_until(lambda: lease.cancelled)
        assert not lease.lost


def test_another_attempt_is_seen_between_beats(bench: Bench) -> None:
    claim = bench.claim(job := bench.submit())
    with LeaseKeeper(bench.store, job.id, claim.attempt, LONG, watch_s=0.05) as lease:
        bench.store.requeue(job.id, claim.attempt, crashed=False)
        assert bench.claim(job).attempt == 2
        wait_until(lambda: lease.lost)


def test_beats_keep_the_lease(bench: Bench) -> None:
    job = bench.submit()
    claim = bench.store.claim(job.id, "first", 0.4)
    assert claim is not None
    beats = 0
    beat = bench.store.beat

    def counted(*arguments) -> str | None:
        nonlocal beats
        beats += 1
        return beat(*arguments)

    bench.store.beat = counted  # type: ignore[method-assign]
    with LeaseKeeper(bench.store, job.id, claim.attempt, 0.4):
        wait_until(lambda: beats > 10)  # a second: more than two leases
        assert bench.store.claim(job.id, "second", 0.4) is None


def test_the_trainer_is_told_how_long_the_lease_lasts_and_no_longer_than_it_does(bench: Bench) -> None:
    claim = bench.claim(job := bench.submit())
    told: list[float] = []
    began = time.monotonic()
    with LeaseKeeper(bench.store, job.id, claim.attempt, 0.4, extended=told.append):
        assert len(told) == 1  # before the trainer starts
        assert began <= told[0] - 0.4 <= time.monotonic()
        wait_until(lambda: len(told) > 3)
        bench.store.requeue(job.id, claim.attempt, crashed=False)
        lost_at = time.monotonic()
    assert told == sorted(told)
    assert told[-1] <= lost_at + 0.4


def test_a_disk_too_full_to_tell_the_trainer_does_not_end_the_beats(bench: Bench) -> None:
    claim = bench.claim(job := bench.submit())
    told: list[float] = []

    def full_at_first(until: float) -> None:
        told.append(until)
        if len(told) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with LeaseKeeper(bench.store, job.id, claim.attempt, 0.4, extended=full_at_first) as lease:
        wait_until(lambda: len(told) > 3)
        assert not lease.lost


def test_silent_database_loses_the_lease_in_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = bench.claim(job := bench.submit())

    def away(*_: object) -> None:
        raise OperationalError("beat", {}, Exception("gone"))

    monkeypatch.setattr(bench.store, "beat", away)
    monkeypatch.setattr(bench.store, "get_job", away)
    with LeaseKeeper(bench.store, job.id, claim.attempt, 0.4) as lease:
        wait_until(lambda: lease.lost)


# The thread's traceback goes to the log; that is what pytest warns about.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_that_nobody_foresaw_loses_the_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = bench.claim(job := bench.submit())

    def broken(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(bench.store, "get_job", broken)
    with LeaseKeeper(bench.store, job.id, claim.attempt, LONG, watch_s=0.05) as lease:
        wait_until(lambda: lease.lost)
