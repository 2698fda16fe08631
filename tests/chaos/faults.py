"""What goes wrong, one function per fault. Each says what it hit; None = there was nothing to hit, so no fault.

A fault that lasts (a stopped process, a full disk) ends before its function returns.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil
import redis
from sqlalchemy import text

from opd_core.runs import database
from opd_core.runs.artifacts import RunFiles, job_files
from opd_core.runs.states import TERMINAL
from tests.chaos.stack import LEASE_S, Stack

Fault = Callable[[Stack, random.Random, list[str]], str | None]
"""(the stack, chance, ids of the jobs that are not over) -> what was hit."""


@dataclass(frozen=True)
class Kind:
    """A fault and how often it is drawn."""

    name: str
    weight: int
    strike: Fault


def _kill(process: psutil.Process, number: int = signal.SIGKILL) -> bool:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def kill_trainer(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    del jobs
    trainers = stack.trainers()
    return f"pid {victim.pid}" if trainers and _kill(victim := chance.choice(trainers)) else None


def kill_pool_child(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    del jobs
    worker = chance.choice(["worker1", "worker2"])
    child = stack.pool_child(worker)
    return worker if child and _kill(child) else None


def kill_worker_group(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    del jobs
    worker = chance.choice(["worker1", "worker2"])
    stack.parts[worker].kill()
    time.sleep(chance.uniform(0.0, LEASE_S))
    stack.parts[worker].restart()
    return worker


def drain_worker(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    del jobs
    worker = chance.choice(["worker1", "worker2"])
    part = stack.parts[worker]
    part.ask_to_stop()
    part.wait(15.0)
    part.restart()
    return worker


def kill(part: str, longest_pause_s: float) -> Fault:
    """kill -9 of a part of the service, which is started again after a pause."""

    def strike(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
        del jobs
        stack.parts[part].kill()
        time.sleep(chance.uniform(0.0, longest_pause_s))
        stack.parts[part].restart()
        return part

    return strike


def flush_broker(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    del chance, jobs
    with suppress(redis.RedisError):
        stack.redis().flushall()
        return "FLUSHALL"
    return None


def stop_supervisor(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    """Longer than the lease: the supervisor sleeps, its trainer goes on, another worker takes the job."""
    del jobs
    child = stack.pool_child(chance.choice(["worker1", "worker2"]))
    return _stopped([child], chance) if child else None


def stop_worker_and_trainer(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    """Longer than the lease, all of it: a machine that was suspended."""
    del jobs
    child = stack.pool_child(chance.choice(["worker1", "worker2"]))
    if child is None:
        return None
    with suppress(psutil.NoSuchProcess):
        return _stopped([child, *child.children(recursive=True)], chance)
    return None


def _stopped(processes: list[psutil.Process], chance: random.Random) -> str | None:
    stopped = [process for process in processes if _kill(process, signal.SIGSTOP)]
    seconds = LEASE_S + chance.uniform(1.0, 4.0)
    time.sleep(seconds)
    for process in stopped:
        _kill(process, signal.SIGCONT)
    return f"{len(stopped)} processes for {seconds:.1f} s" if stopped else None


def stop_trainer(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    """The supervisor is awake and keeps the lease: nothing may happen but delay."""
    del jobs
    trainers = stack.trainers()
    return _stopped([chance.choice(trainers)], chance) if trainers else None


def duplicate_bells(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    if not jobs:
        return None
    job_id, times = chance.choice(jobs), chance.randint(1, 5)
    try:
        stack.ring(job_id, times)
    except OSError:
        return None
    return f"{times} times {job_id}"


def drop_bells(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    """Every message that waits is lost."""
    del chance, jobs
    with suppress(redis.RedisError):
        return f"{stack.redis().delete('opd:cpu')} queue"
    return None


def lock_database(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    """Somebody else's transaction holds what every write needs."""
    del jobs
    seconds = chance.uniform(2.0, LEASE_S + 1.0)
    with database.writer(stack.store.engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        time.sleep(seconds)
    return f"{seconds:.1f} s"


def fill_disk(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    """Nothing is left where checkpoints and records go."""
    del jobs
    if stack.disk is None:
        return None
    ballast = stack.disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(256 * 1024))
    time.sleep(chance.uniform(2.0, 5.0))
    ballast.unlink()
    return "artifacts"


def damage_checkpoint(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    """One file of a newest checkpoint is cut or has a flipped bit."""
    for job_id in chance.sample(jobs, len(jobs)):
        files = job_files(stack.settings.artifacts_url, job_id)
        found = files.list("checkpoints")  # names begin with the step
        if found and (what := _damage(files, f"checkpoints/{found[-1]}", chance)):
            return what
    return None


def _damage(files: RunFiles, folder: str, chance: random.Random) -> str | None:
    try:
        names = [entry["name"] for entry in files.read_json(f"{folder}/manifest.json")["files"]]
        name = chance.choice([*names, "manifest.json"])
        data = files.read_bytes(f"{folder}/{name}")
        cut = chance.random() < 0.5
        place = chance.randrange(len(data))
        # In place, as a failing disk would.
        with files.open(f"{folder}/{name}", "wb") as file:
            file.write(data[:place] if cut else data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
    except (OSError, ValueError, KeyError):  # it was removed meanwhile
        return None
    return f"{'cut' if cut else 'flipped'} {folder}/{name}"


def pause_and_resume(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    """A user's wish in the middle of it all."""
    if not jobs:
        return None
    job_id = chance.choice(jobs)
    try:
        stack.store.request_pause(job_id)
    except ValueError:  # it is finalizing or over
        return None
    time.sleep(chance.uniform(0.2, 2.0))
    try:
        stack.store.request_resume(job_id)
    except ValueError:  # it came to its end before it could pause
        job = stack.store.get_job(job_id)
        if job is None or job.status not in TERMINAL:
            raise
    return job_id


def wish_checkpoint(stack: Stack, chance: random.Random, jobs: list[str]) -> str | None:
    if not jobs:
        return None
    job_id = chance.choice(jobs)
    with suppress(ValueError):
        stack.store.request_checkpoint(job_id)
        return job_id
    return None


KINDS = (
    Kind("kill -9 trainer", 4, kill_trainer),
    Kind("kill -9 pool child", 3, kill_pool_child),
    Kind("kill -9 worker group", 3, kill_worker_group),
    Kind("kill -9 api", 3, kill("api", 1.0)),
    Kind("kill -9 broker", 3, kill("broker", 2.0)),
    Kind("FLUSHALL", 3, flush_broker),
    Kind("SIGSTOP supervisor beyond the lease", 3, stop_supervisor),
    Kind("SIGSTOP worker and trainer beyond the lease", 2, stop_worker_and_trainer),
    Kind("SIGSTOP trainer", 1, stop_trainer),
    Kind("drain worker", 2, drain_worker),
    Kind("duplicate bells", 3, duplicate_bells),
    Kind("dropped bells", 3, drop_bells),
    Kind("database locked", 3, lock_database),
    Kind("disk full", 3, fill_disk),
    Kind("damaged checkpoint", 4, damage_checkpoint),
    Kind("pause and resume", 2, pause_and_resume),
    Kind("wished checkpoint", 1, wish_checkpoint),
)
