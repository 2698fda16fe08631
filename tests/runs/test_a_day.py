"""A day of leases and heartbeats on a clock of its own: nothing drifts, nothing leaks, nothing gets stuck.

SQLite's clock is replaced by a number, so that an hour takes seconds. Workers die in the middle of jobs, drain, and
come back; the clock of the machine is set forward and back.
"""

from __future__ import annotations

import random
import resource
from dataclasses import dataclass, field

import pytest
from sqlalchemy import event, func, select

from opd_core.recipes import resolve
from opd_core.runs import database, tables
from opd_core.runs.rows import Claim
from opd_core.runs.states import ACTIVE
from opd_core.runs.store import RunStore

LEASE_S, TICK_S, RING_S = 30.0, 7.5, 30.0  # a lease is renewed every quarter of its length
_EPOCH = 2440587.5


class Clock:
    """Seconds since 1970, as the database sees them."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def julian(self, _: str) -> float:
        return self.now / 86400.0 + _EPOCH


@dataclass
class Hand:
    """A worker: it holds one job, or waits for a bell, or is gone until ``back``."""

    name: str
    claim: Claim | None = None
    left_s: float = 0.0
    back: float = 0.0


@dataclass
class Day:
    store: RunStore
    clock: Clock
    chance: random.Random
    spec: object
    hands: list[Hand]
    bells: list[str] = field(default_factory=list)
    deaths: int = 0
    lost: int = 0

    def tick(self) -> None:
        self.clock.now += TICK_S
        if self.chance.random() < 0.05:
            self.store.create_job(self.spec, resolve(self.spec))
        for job_id, _ in self.store.due(RING_S):
            self.bells.append(job_id)
            self.store.mark_rung(job_id)
        for hand in self.hands:
            self._live(hand)

    def _live(self, hand: Hand) -> None:
        now = self.clock.now
        if now < hand.back:
            return
        held = None if hand.claim is None else hand.claim.job_id
        self.store.heartbeat_worker(hand.name, host="h", queues=["cpu"], pid=1, job_id=held)
        if hand.claim is None:
            if self.bells and (claim := self.store.claim_next(self.bells.pop(0), hand.name, LEASE_S)):
                hand.claim, hand.left_s = claim, self.chance.uniform(60, 900)
            return
        hand.left_s -= TICK_S
        if self.chance.random() < 0.006:  # it dies with its job and says nothing
            self.deaths += 1
            hand.claim, hand.back = None, now + self.chance.uniform(1, 120)
        elif self.chance.random() < 0.006:
            self.lost += not self.store.requeue(hand.claim.job_id, hand.claim.attempt, crashed=False)
            hand.claim = None
        elif hand.left_s <= 0:
            self.lost += not self.store.finish(hand.claim.job_id, hand.claim.attempt, "succeeded")
            hand.claim = None
        elif self.store.beat(hand.claim.job_id, hand.claim.attempt, LEASE_S) is None:
            self.lost += 1
            hand.claim = None

    def check(self) -> None:
        """Every active job is held by one hand, whose lease is neither over nor longer than it can be."""
        holders = [hand.claim.job_id for hand in self.hands if hand.claim is not None]
        assert len(set(holders)) == len(holders)
        jobs = tables.jobs.c
        with self.store._read() as connection:
            rows = connection.execute(
                select(jobs.id, jobs.lease_until, jobs.status).where(jobs.status.in_(ACTIVE))
            ).all()
        for job_id, until, _ in rows:
            left = until - self.clock.now
            assert -TICK_S - 1e-3 <= left <= LEASE_S + 1e-3
            if job_id in holders:
                assert left >= LEASE_S - TICK_S - 1e-3


@pytest.fixture
def day(tmp_path, spec):
    clock = Clock()
    engine = database.connect(f"sqlite:///{tmp_path}/runs.db")
    event.listen(engine, "connect", lambda connection, _: connection.create_function("julianday", 1, clock.julian))
    database.migrate(engine)
    patient = spec.model_copy(update={"schedule": spec.schedule.model_copy(update={"max_restarts": 100})})
    yield Day(RunStore(engine), clock, random.Random(7), patient, [Hand(f"w{k}") for k in range(4)])
    engine.dispose()


@pytest.mark.parametrize("hours", [0.5, pytest.param(24, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_hours_of_leases(day, hours):
    peaks = []
    for _ in range(int(hours * 3600 / TICK_S)):
        day.tick()
        day.check()
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert day.deaths > hours
    assert peaks[-1] - peaks[len(peaks) // 4] < 8 * 1024  # KiB: caches are warm after a quarter
    assert day.lost == 0  # a live worker never lost its lease
    _work_off(day)

    jobs, attempts = tables.jobs.c, tables.attempts.c
    with day.store._read() as connection:
        ends = dict(connection.execute(select(jobs.status, func.count()).group_by(jobs.status)).all())
        crashes = connection.execute(select(func.sum(jobs.crashes))).scalar_one()
        open_attempts = connection.execute(select(func.count()).where(attempts.finished_at.is_(None))).scalar_one()
    assert set(ends) == {"succeeded"}
    assert crashes == day.deaths
    assert open_attempts == 0


@pytest.mark.parametrize("jump_s", [600.0, -600.0])
def test_a_clock_that_is_set(day, jump_s):
    """Forward, every lease is over at once; backward, a dead worker's job waits as much longer, and no longer."""
    for _ in range(60):
        day.tick()
    day.clock.now += jump_s
    for hand in day.hands:
        hand.back = 0.0
    for _ in range(int(900 / TICK_S)):
        day.tick()
    _work_off(day)
    with day.store._read() as connection:
        ends = connection.execute(select(tables.jobs.c.status).distinct()).scalars().all()
    assert ends == ["succeeded"]


def _work_off(day: Day) -> None:
    """No new jobs, no more deaths: what is left has to end."""

    class Calm(random.Random):
        def random(self) -> float:
            return 1.0

    day.chance = Calm(1)
    jobs = tables.jobs.c
    for _ in range(20_000):
        day.tick()
        with day.store._read() as connection:
            left = connection.execute(select(func.count()).where(jobs.status.in_({"queued", *ACTIVE}))).scalar_one()
        if not left:
            return
    raise AssertionError(f"{left} jobs are stuck")
