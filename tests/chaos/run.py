"""Real jobs under seeded faults, and a checker over what they leave.

    python -m tests.chaos.run --faults 300 --jobs 30 --seed 1 --setup embedded --out result.json

embedded: Valkey from the wheel, SQLite, files on a small disk of their own where one can be mounted (root on Linux).
scaled: PostgreSQL from OPD_TEST_POSTGRES_URL; artifacts in OPD_TEST_S3_URL if that is set. The seed decides which
faults strike whom and when; how far a run is at that moment is the machine's business. Exit code 1 when the checker
finds anything; --keep leaves the stack's folder for a look.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.client import ApiError
from opd_core.recipes import resolve
from opd_core.runs.artifacts import RunFiles
from opd_core.runs.settings import Settings
from opd_core.runs.states import TERMINAL
from opd_core.spec import JobSpec
from tests.chaos.checker import Reference, check, leftovers
from tests.chaos.faults import KINDS
from tests.chaos.stack import CODE, LIGHT, Setup, Stack, running, wait_until
from tests.postgres import SERVER, fresh_database
from tests.tiny import TinyWorld, make_tiny_world, tiny_body
from worker.trainer_process import TRAINER, trainer_environment

STEPS = 60
_PATIENCE_S = 60.0
_HEALED_WITHIN_S = 900.0


def _say(line: str) -> None:
    print(line, flush=True)


@dataclass
class Campaign:
    """One seeded run of the harness."""

    faults: int
    jobs: int
    seed: int
    setup: Setup = field(default_factory=Setup)
    specs: int = 2
    at_once: int = 4
    minutes: float = float("inf")
    only: str = ""
    pause_s: tuple[float, float] = (0.1, 1.5)
    say: Callable[[str], None] = _say

    def run(self, folder: Path) -> dict[str, Any]:
        """Figures and findings."""
        self.say(f"seed {self.seed}: {self.faults} faults over at least {self.jobs} jobs")
        world = self._world(_made(folder / "world"))
        references = [self._reference(world, folder, number) for number in range(self.specs)]
        self.say(f"{self.specs} undisturbed runs are the measure")
        chance, struck = random.Random(self.seed), Counter[str]()
        accepted: dict[str, Reference] = {}
        began = time.monotonic()
        with running(folder, world, self.setup) as stack:
            while sum(struck.values()) < self.faults or len(accepted) < self.jobs:
                if time.monotonic() - began > 60 * self.minutes:
                    self.say("the time is over")
                    break
                self._submit(stack, world, references, accepted)
                time.sleep(chance.uniform(*self.pause_s))
                if sum(struck.values()) < self.faults:
                    self._strike(stack, chance, accepted, struck, began)
                stack.heal()
            self._settle(stack, accepted)
            seconds = time.monotonic() - began
            found = check(stack.store, stack.settings, accepted, STEPS)
            found += [f"left behind: {name}" for name in leftovers(stack.disk or stack.home / "artifacts")]
            if orphans := stack.trainers():
                found.append(f"{len(orphans)} trainers outlive their jobs")
            attempts = sum(len(stack.store.list_attempts(job_id)) for job_id in accepted)
        return {
            "seed": self.seed,
            "setup": "scaled" if self.setup.database_url else "embedded",
            "faults": sum(struck.values()),
            "faults_by_kind": dict(sorted(struck.items())),
            "not_possible_here": [] if stack.disk else ["disk full"],
            "jobs": len(accepted),
            "trainer": "light" if self.setup.light else "real",
            "steps_per_job": STEPS,
            "attempts": attempts,
            "seconds": round(seconds, 1),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "findings": found,
            "verdict": "passed" if not found else "failed",
        }

    def _world(self, root: Path) -> TinyWorld:
        if not self.setup.light:
            return make_tiny_world(root)
        return TinyWorld(Path("demo/student"), Path("demo/teacher"), root, root)

    def _body(self, world: TinyWorld, number: int) -> dict[str, Any]:
        schedule = {"steps": STEPS, "evaluate_every": 30, "checkpoint_every": 3, "max_restarts": 1000}
        if self.setup.light:
            models = {"student": {"model": "demo/student"}, "teacher": {"model": "demo/teacher"}}
            task = {"name": "demo/word-problems"}
            return {**models, "task": task, "name": f"chaos {number}", "seed": number, "schedule": schedule}
        return tiny_body(world, name=f"chaos {number}", seed=number, schedule=schedule)

    def _reference(self, world: TinyWorld, folder: Path, number: int) -> Reference:
        """The same spec in a trainer that nothing happens to."""
        spec, out = folder / f"reference-{number}.json", folder / "references" / str(number)
        spec.write_text(resolve(JobSpec.model_validate(self._body(world, number))).model_dump_json())
        path = f"{LIGHT}:{CODE}" if self.setup.light else str(CODE)
        settings = Settings(home=folder, model_roots=(world.root,), data_roots=(world.root,))
        environment = trainer_environment(settings, 1, {**os.environ, "PYTHONPATH": path})
        environment["OPD_SUPERVISOR_PID"] = str(os.getpid())
        command = [*TRAINER, "--spec", str(spec), "--out", str(out)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"the undisturbed run failed:\n{ended.stderr[-2000:]}")
        return Reference.of(RunFiles(out))

    def _submit(
        self, stack: Stack, world: TinyWorld, references: list[Reference], accepted: dict[str, Reference]
    ) -> None:
        """Keep a few jobs on the way. An API that is away is asked again with the same key."""
        open_jobs = _open(stack, accepted)
        while len(open_jobs) < self.at_once:
            number = len(accepted) % self.specs
            key = uuid.uuid4().hex
            while True:
                try:
                    job = stack.client.submit(self._body(world, number), idempotency_key=key)
                    break
                except (httpx.HTTPError, ApiError) as error:
                    if isinstance(error, ApiError) and error.status < 500 and error.status != 0:
                        raise
                    stack.heal()
                    time.sleep(0.3)
            accepted[job.id] = references[number]
            open_jobs.append(job.id)

    def _strike(
        self, stack: Stack, chance: random.Random, accepted: dict[str, Reference], struck: Counter[str], began: float
    ) -> None:
        if chance.random() < 0.5:
            # Loading a trainer takes longer than most pauses: without this most faults would meet no training.
            self._wait_for_training(stack, accepted)
        kinds = [kind for kind in KINDS if self.only in kind.name]
        kind = chance.choices(kinds, [kind.weight for kind in kinds])[0]
        hit = kind.strike(stack, chance, _open(stack, accepted))
        if hit is not None:
            struck[kind.name] += 1
            over = len(accepted) - len(_open(stack, accepted))
            self.say(
                f"{time.monotonic() - began:7.1f} s  {sum(struck.values()):4d}  {kind.name}: {hit}; {over} jobs over"
            )

    def _wait_for_training(self, stack: Stack, accepted: dict[str, Reference]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and "running" not in _states(stack, accepted).values():
            stack.heal()
            time.sleep(0.2)

    def _settle(self, stack: Stack, accepted: dict[str, Reference]) -> None:
        """No more faults: everything that was accepted must come to its end."""

        def over() -> bool:
            stack.heal()
            return not _open(stack, accepted)

        self.say("no more faults; waiting for every job")
        wait_until(over, f"jobs that do not end: {_open(stack, accepted)}", _HEALED_WITHIN_S)
        wait_until(lambda: not stack.trainers(), "trainers that do not end", 30.0)


def _states(stack: Stack, accepted: dict[str, Reference]) -> dict[str, str]:
    jobs = (stack.store.get_job(job_id) for job_id in accepted)
    return {job.id: job.status for job in jobs if job is not None}


def _open(stack: Stack, accepted: dict[str, Reference]) -> list[str]:
    return [job_id for job_id, status in _states(stack, accepted).items() if status not in TERMINAL]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@contextmanager
def setup(name: str, light: bool) -> Iterator[Setup]:
    """The Setup of that name; a fresh database for "scaled"."""
    if name == "embedded":
        yield Setup(light=light)
        return
    if not SERVER:
        raise SystemExit("--setup scaled: OPD_TEST_POSTGRES_URL is not set; name a PostgreSQL server, as .ci/run does")
    store = os.environ.get("OPD_TEST_S3_URL")
    with fresh_database() as url:
        yield Setup(
            url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False),
            f"{store.rstrip('/')}/{url.database}" if store else None,
            light,
        )


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    parser.add_argument("--setup", choices=["embedded", "scaled"], default="embedded")
    parser.add_argument("--light", action="store_true", help="a trainer without tensors: many faults in little time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no new faults and jobs after so long")
    parser.add_argument("--only", default="", help="only faults with this in their name")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--keep", action="store_true", help="leave the stack's folder")
    arguments = parser.parse_args()
    if not any(arguments.only in kind.name for kind in KINDS):
        parser.error(f"--only {arguments.only!r}: no fault has this in its name: {', '.join(k.name for k in KINDS)}")
    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    folder = Path(tempfile.mkdtemp(prefix="opd-chaos-"))
    try:
        with setup(arguments.setup, arguments.light) as chosen:
            limits = {"minutes": arguments.minutes, "only": arguments.only}
            result = Campaign(arguments.faults, arguments.jobs, seed, chosen, **limits).run(folder)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["verdict"] == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
