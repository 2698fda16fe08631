"""What the endpoints work with, made on first use: importing or building the app opens nothing."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Annotated, cast

from fastapi import Depends, Request

from api.bell import Bell
from api.places import Places
from opd_core.runs import database
from opd_core.runs.artifacts import RunFiles, job_files
from opd_core.runs.live import LiveReader
from opd_core.runs.plain import storable
from opd_core.runs.questions import Questions
from opd_core.runs.rows import Job
from opd_core.runs.settings import Settings
from opd_core.runs.store import Quota, RunStore
from opd_core.runs.tokens import Tokens


class Services:
    """The run records, the broker and the artifact store of one application."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bell = Bell(settings.redis_url)
        self.live = LiveReader(settings.redis_url) if settings.redis_url else None
        self.quota = Quota(settings.waiting_per_token, settings.waiting_total)
        self.streams = Places(settings.streams_per_token, settings.streams_total)
        self.stopping = threading.Event()
        """Set when the server is about to stop, so that open streams end."""
        self._lock = threading.Lock()
        self._store: RunStore | None = None

    @property
    def store(self) -> RunStore:
        """The run records; the database is opened and migrated on first use."""
        with self._lock:
            if self._store is None:
                engine = database.connect(self.settings.database_url)
                database.migrate(engine)
                self._store = RunStore(engine)
            return self._store

    @property
    def questions(self) -> Questions:
        """Questions about runs, in the same database."""
        return Questions(self.store.engine)

    @property
    def tokens(self) -> Tokens:
        """Access tokens, in the same database."""
        return Tokens(self.store.engine)

    def files(self, job_id: str) -> RunFiles:
        """The run directory of a job."""
        return job_files(self.settings.artifacts_url, job_id)

    def announce(self, job: Job) -> None:
        """Ring the bell of a queued job. With the broker away the reconciler does it later."""
        if self.bell.ring(job.id, job.queue):
            self.store.mark_rung(job.id)
        else:
            message = "the broker is away: the job waits in the database and the worker is told later"
            self.store.add_event(job.id, "warning", "bell_failed", message)

    def vocabulary(self, job_id: str) -> list[str]:
        """Text by token id; empty until the run has written it."""
        files = self.files(job_id)
        try:
            return _vocabulary(files.url, files.size("vocabulary.json"))
        except FileNotFoundError:
            return []

    def close(self) -> None:
        """Close what was opened."""
        self.stopping.set()
        self.bell.close()
        if self.live is not None:
            self.live.close()
        with self._lock:
            if self._store is not None:
                self._store.engine.dispose()


@lru_cache(maxsize=8)
def _vocabulary(url: str, size: int) -> list[str]:
    """A run writes its vocabulary once; ``size`` tells a directory that was made anew.

    Byte-level tokens may be lone surrogates, which JSON over UTF-8 does not have.
    """
    del size
    return [storable(text) for text in RunFiles(url).read_json("vocabulary.json")]


def services(request: Request) -> Services:
    """The application's services."""
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services)]
