"""Questions beside training: ``celery -A worker.app worker -c 1 -Q _aside``. Start it niced.

A worker is busy for the whole of a training job, so questions have a queue and workers of their own. Like training, an
answer is made by a child process that dies with this one: no tensor ever lives here.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from opd_core.runs import database
from opd_core.runs.artifacts import RunFiles, job_files
from opd_core.runs.ids import is_id
from opd_core.runs.questions import Question, Questions, answer_file
from opd_core.runs.queue import QUESTION_TASK
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from worker import messages
from worker.app import app
from worker.redact import redact
from worker.slot import SLOT
from worker.trainer_process import TrainerProcess, trainer_environment

ANSWERER: tuple[str, ...] = (sys.executable, "-m", "opd_core.training.answer")

_TICK_S = 0.2
_LOG_LINES = 5

log = structlog.get_logger()


@app.task(name=QUESTION_TASK)
def answer_question(question_id: str) -> None:
    """Answer one question if it is to be had. The message carries nothing but its id."""
    if not isinstance(question_id, str) or not is_id(question_id):
        log.warning("bell_without_question_id")
        return
    if SLOT.draining():
        log.info("bell_while_draining", question_id=question_id)
        return
    settings = Settings()
    engine = database.connect(settings.database_url)  # here, not at import: this process was forked
    try:
        questions = Questions(engine)
        question = questions.claim(question_id, settings.lease_s)
        job = None if question is None else RunStore(engine).get_job(question.job_id)
        if question is None or job is None:
            log.info("bell_ignored", question_id=question_id)
            return
        files = job_files(settings.artifacts_url, job.id)
        how = Answering(question, questions, files, settings, draining=SLOT.draining).run(job.resolved_spec)
        log.info("question_closed", question_id=question_id, job_id=job.id, kind=question.kind, how=how)
    finally:
        engine.dispose()


class Answering:
    """One try at a question. Call ``run`` from a thread that outlives the child (worker/leash.py)."""

    def __init__(
        self,
        question: Question,
        questions: Questions,
        files: RunFiles,
        settings: Settings,
        *,
        draining: Callable[[], bool],
        command: Sequence[str] = ANSWERER,
    ) -> None:
        self._question, self._questions, self._files = question, questions, files
        self._settings, self._draining, self._command = settings, draining, command
        self._phase = question.phase
        self._error: dict[str, Any] | None = None

    def run(self, spec: dict[str, Any]) -> str:
        """Blocks until the question is closed, given back or lost; says which."""
        question, settings = self._question, self._settings
        with tempfile.TemporaryDirectory(prefix="opd-question-") as folder:
            file = Path(folder) / "question.json"
            told = {"id": question.id, "kind": question.kind, "request": question.request, "spec": spec}
            file.write_text(json.dumps(told), encoding="utf-8")
            child = TrainerProcess(
                [*self._command, "--question", str(file), "--out", self._files.url],
                {**trainer_environment(settings, 1, os.environ), "TMPDIR": folder},
            )
            try:
                stopped = self._listen(child)
            finally:
                child.kill()
            if stopped is not None:
                return stopped
            child.finish_reading()
            self._take(_everything(child))
            return self._close(child.exit_code(), child.log.last_lines(_LOG_LINES))

    def _listen(self, child: TrainerProcess) -> str | None:
        """Until the child has ended (None) or has to be stopped (why)."""
        question, lease_s = self._question, self._settings.lease_s
        deadline, beat_at = time.monotonic() + self._settings.question_s, 0.0
        while child.exit_code() is None:
            if time.monotonic() >= deadline:
                return self._fail("too_long", f"no answer within {self._settings.question_s:g} s (OPD_QUESTION_S)")
            if self._draining():
                self._questions.give_back(question.id, question.tries)
                return "given back"
            before = self._phase
            self._take(_next(child, _TICK_S))
            if time.monotonic() >= beat_at or self._phase != before:
                if not self._questions.beat(question.id, question.tries, lease_s, self._phase):
                    return "lost"
                beat_at = time.monotonic() + lease_s / 4
        return None

    def _take(self, lines: Iterator[bytes]) -> None:
        for line in lines:
            try:
                said = messages.parse(line)
            except messages.MalformedLine as error:
                log.warning("malformed_line", question_id=self._question.id, error=redact(str(error)))
                continue
            if isinstance(said, messages.Phase):
                self._phase = said.phase
            elif isinstance(said, messages.Failed):
                self._error = said.error.model_dump()

    def _close(self, exit_code: int | None, last_lines: str) -> str:
        question = self._question
        if self._error is not None:
            self._questions.finish(question.id, question.tries, self._error)
            return "failed"
        if exit_code == 0 and self._files.exists(answer_file(question.id)):
            self._questions.finish(question.id, question.tries)
            return "answered"
        log.error("answer_crashed", question_id=question.id, exit_code=exit_code, log=redact(last_lines))
        return self._fail("crashed", f"the process that answers ended with exit code {exit_code}; its log says why")

    def _fail(self, code: str, message: str) -> str:
        error = {"code": code, "message": message, "param": None, "category": "system", "retryable": True}
        self._questions.finish(self._question.id, self._question.tries, error)
        return "failed"


def _next(child: TrainerProcess, wait_s: float) -> Iterator[bytes]:
    """The next line, if one comes in time."""
    try:
        yield child.lines.get(timeout=wait_s)
    except queue.Empty:
        return


def _everything(child: TrainerProcess) -> Iterator[bytes]:
    while not child.lines.empty():
        yield child.lines.get_nowait()
