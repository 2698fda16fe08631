"""A service to be fuzzed: the real application on a real database and real files, with a job behind every address."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import text
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.main import create_app
from opd_core.runs import records
from opd_core.runs.ids import is_id
from opd_core.runs.settings import Settings
from tests.runs.test_records import row

TOKEN = "a-fuzzed-token"
SPEC: dict[str, Any] = {
    "name": "a job",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
    "metadata": {"team": "fuzz"},
}
# High enough not to be met by accident, low enough that waiting jobs and questions meet them.
LIMITS = {"requests_per_s": 1e6, "requests_burst": 10**6, "waiting_per_token": 300, "waiting_total": 600}


class Counted:
    """Counts requests by status on their way to the application, which is started by nobody and stopped by nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.statuses: Counter[int] = Counter()

    @property
    def requests(self) -> int:
        return self.statuses.total()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses[message["status"]] += 1
            await send(message)

        if scope["type"] == "http":
            await self._app(scope, receive, counted)
            return
        for _ in range(2):  # a lifespan that does nothing
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})


class World:
    """The service, its tokens, and a job with everything that a run leaves behind."""

    def __init__(self, home: Path) -> None:
        self._home = home
        settings = Settings(
            home=home,
            api_token=TOKEN,
            redis_url=None,
            database_url="",
            artifacts_url="",
            model_roots=str(home / "models"),
            data_roots=str(home / "data"),
            reconcile=False,
            **LIMITS,
        )
        self.inner = create_app(settings)
        self.app = Counted(self.inner)
        self.services = self.inner.state.services
        self.store = self.services.store
        tokens = self.services.tokens
        self.tokens = {
            "admin": TOKEN,
            "submit": tokens.create("fuzz-submit", "submit"),
            "read": tokens.create("fuzz-read", "read"),
            "nobody": "wrong",
        }
        self._children = _children()

    def make_job(self, *, ended: bool = False) -> dict[str, Any]:
        """Values of path parameters under which there is something."""
        from opd_core import recipes
        from opd_core.spec import JobSpec

        spec = JobSpec.model_validate(SPEC)
        job_id = self.store.create_job(spec, recipes.resolve(spec), created_by="admin").id
        self.store.claim(job_id, "w1", 3600)
        self.store.add_metrics(job_id, 1, 1, {"loss": 0.5, "accuracy": 0.25})
        files = self.services.files(job_id)
        files.write_json("vocabulary.json", ["<pad>", "one", "two", "\ud800"])
        records.write_part(files, [row(1), row(1, n=1)], 1, 10, 1)
        local = self._home / "made"
        local.mkdir()
        (local / "model.safetensors").write_bytes(bytes(256))
        manifest = files.publish(local, "checkpoints/step-000001.a1", manifest={"step": 1, "attempt": 1})
        shutil.rmtree(local, ignore_errors=True)
        checkpoint = self.store.add_checkpoint(
            job_id, 1, name="step-000001.a1", step=1, kind="training", size_bytes=256, files=manifest["files"]
        )
        assert checkpoint is not None
        if ended:
            self.store.finish(job_id, 1, "succeeded", report={"seed": 0})
        return {
            "job_id": job_id,
            "checkpoint_id": checkpoint.id,
            "file_id": checkpoint.files[0]["id"],
            "step": 1,
            "n": 0,
            "token": 0,
            "name": "gkd",
        }

    def orphans(self) -> list[str]:
        """Rows without their job, files without their row, rows without their files, processes that were left."""
        return [
            *self._orphan_rows(),
            *self._orphan_files(),
            *(f"process {pid}" for pid in _children() - self._children),
        ]

    def _orphan_rows(self) -> list[str]:
        with self.store.engine.connect() as connection:
            broken = connection.execute(text("PRAGMA foreign_key_check")).all()
            checked = connection.execute(text("PRAGMA integrity_check")).scalar_one()
        return [f"row {found}" for found in broken] + ([] if checked == "ok" else [f"database: {checked}"])

    def _orphan_files(self) -> list[str]:
        found = []
        with self.store.engine.connect() as connection:
            jobs = set(connection.execute(text("SELECT id FROM jobs")).scalars())
            questions = set(connection.execute(text("SELECT id FROM questions")).scalars())
        folder = self._home / "artifacts" / "jobs"
        for run in folder.iterdir() if folder.is_dir() else ():
            if run.name not in jobs:
                found.append(f"files of {run.name}, which is no job")
        for file in (self._home / "artifacts").rglob("*"):
            if file.name.endswith(".tmp"):
                found.append(f"unfinished file {file}")
            if file.parent.name == "questions" and file.stem not in questions:
                found.append(f"file of a question that is none: {file}")
        for job_id in jobs:
            for checkpoint in self.store.list_checkpoints(job_id):
                path = folder / job_id / "checkpoints" / checkpoint.name / "manifest.json"
                if not path.is_file():
                    found.append(f"checkpoint without files: {path}")
        known = {"artifacts", "opd.db", "opd.db-wal", "opd.db-shm"}
        found += [f"stray file {entry}" for entry in self._home.iterdir() if entry.name not in known]
        found += [f"stray id {name}" for name in jobs | questions if not is_id(name)]
        return found

    def close(self) -> None:
        self.services.close()


def _children() -> set[int]:
    """Processes that this one has started and that have not ended."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
