"""Questions about a run, answered by a worker beside training: what if, and what would it do here.

A question is a row like a job is: the message on the queue is a doorbell, a claim takes a lease and raises ``tries``,
the fencing token of the answer. The answer is a file of the run (``questions/ID.json``), and so is what a question is
asked about (``questions/ID.arrow``): token records as they were when it was asked, since a later attempt may repeat
the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from sqlalchemy import ColumnElement, Engine, RowMapping, and_, delete, func, insert, null, or_, select, update

from opd_core.runs import tables as t
from opd_core.runs.artifacts import RunFiles
from opd_core.runs.database import writer
from opd_core.runs.ids import new_id
from opd_core.runs.plain import finite, storable

MAX_TRIES = 2
"""A question whose worker was lost more often fails with code ``worker_lost``."""
MAX_OPEN = 32
"""More questions than this do not wait at a time."""
KEPT_S = 7 * 24 * 3600.0
"""Answers older than this are removed."""

Kind = Literal["replan", "probe"]
_OPEN = ("waiting", "working")


class TooManyQuestions(RuntimeError):
    """As many questions as may wait are waiting."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question as it stands. ``status``: waiting, working, answered, failed. Times are UTC epoch seconds."""

    id: str
    job_id: str
    kind: Kind
    request: dict[str, Any]
    status: str
    phase: str
    tries: int
    created_at: float
    finished_at: float | None
    error: dict[str, Any] | None

    @classmethod
    def of(cls, mapping: RowMapping) -> Self:
        return cls(**{field.name: mapping[field.name] for field in fields(cls)})


class Questions:
    """Every read and write of questions. Thread-safe; make the engine after a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writer(engine)

    def ask(self, job_id: str, kind: Kind, request: Mapping[str, Any], *, id: str | None = None) -> Question:
        """Write a waiting question and commit; ring the bell afterwards. Raises TooManyQuestions."""
        id = id or new_id("question")
        with self._writer.begin() as connection:
            waiting = connection.execute(
                select(func.count()).select_from(t.questions).where(t.questions.c.status.in_(_OPEN))
            ).scalar_one()
            if waiting >= MAX_OPEN:
                raise TooManyQuestions(f"{waiting} questions are waiting for an answer; ask again when some are done")
            connection.execute(
                insert(t.questions).values(
                    id=id,
                    job_id=job_id,
                    kind=kind,
                    request=dict(request),
                    status="waiting",
                    phase="waiting for a worker",
                    tries=0,
                    created_at=t.db_now(),
                    error=null(),
                )
            )
            row = connection.execute(select(t.questions).where(t.questions.c.id == id)).mappings().one()
            return Question.of(row)

    def get(self, question_id: str) -> Question | None:
        """The question, or None."""
        with self._engine.connect() as connection:
            row = (
                connection.execute(select(t.questions).where(t.questions.c.id == question_id)).mappings().one_or_none()
            )
        return None if row is None else Question.of(row)

    def claim(self, question_id: str, lease_s: float) -> Question | None:
        """Take a waiting question. None when it is not to be had."""
        questions = t.questions.c
        return self._change(
            (questions.id == question_id, questions.status == "waiting"),
            status="working",
            phase="starting",
            tries=questions.tries + 1,
            lease_until=t.db_now() + lease_s,
        )

    def beat(self, question_id: str, tries: int, lease_s: float, phase: str) -> bool:
        """Renew the lease and say what is being done; False when the question was taken away."""
        values = {"lease_until": t.db_now() + lease_s, "phase": storable(phase)[:256]}
        return self._change(_held(question_id, tries), **values) is not None

    def finish(self, question_id: str, tries: int, error: Mapping[str, Any] | None = None) -> bool:
        """Answered (the file is written), or failed with this error. False when the question was taken away."""
        status = "answered" if error is None else "failed"
        values = {"status": status, "phase": status, "lease_until": None, "finished_at": t.db_now()}
        failure = null() if error is None else finite(dict(error))
        return self._change(_held(question_id, tries), **values, error=failure) is not None

    def give_back(self, question_id: str, tries: int) -> bool:
        """The worker is shutting down: somebody else may answer, and it does not count as a try."""
        values = {"status": "waiting", "phase": "waiting for a worker", "lease_until": None, "rung_at": None}
        return self._change(_held(question_id, tries), **values, tries=t.questions.c.tries - 1) is not None

    def due(self, ring_after_s: float) -> list[str]:
        """Settle questions whose worker was lost; ids of those whose bell has to be rung (again)."""
        questions, clock = t.questions.c, t.db_now()
        expired = and_(questions.status == "working", questions.lease_until < clock)
        lost = {
            "category": "system",
            "retryable": True,
            "code": "worker_lost",
            "message": f"the worker was lost {MAX_TRIES} times while answering",
            "param": None,
        }
        with self._writer.begin() as connection:
            connection.execute(
                update(t.questions)
                .where(expired, questions.tries >= MAX_TRIES)
                .values(status="failed", phase="failed", lease_until=None, finished_at=clock, error=lost)
            )
            again = {"status": "waiting", "phase": "waiting for a worker", "lease_until": None, "rung_at": None}
            connection.execute(update(t.questions).where(expired).values(**again))
        unheard = or_(questions.rung_at.is_(None), questions.rung_at < clock - ring_after_s)
        query = select(questions.id).where(questions.status == "waiting", unheard).order_by(questions.id)
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def mark_rung(self, question_id: str) -> None:
        """Remember that the bell of a question was rung just now."""
        self._change((t.questions.c.id == question_id,), rung_at=t.db_now())

    def outdated(self, older_than_s: float = KEPT_S) -> list[Question]:
        """Closed questions that are to be removed, oldest first, a hundred at a time."""
        questions = t.questions.c
        query = (
            select(t.questions)
            .where(questions.status.not_in(_OPEN), questions.finished_at < t.db_now() - older_than_s)
            .order_by(questions.id)
            .limit(100)
        )
        with self._engine.connect() as connection:
            return [Question.of(row) for row in connection.execute(query).mappings()]

    def remove(self, question_id: str) -> None:
        """Forget a question; its files go first (``remove_files``)."""
        with self._writer.begin() as connection:
            connection.execute(delete(t.questions).where(t.questions.c.id == question_id))

    def _change(self, where: Sequence[ColumnElement[bool]], **values: Any) -> Question | None:
        with self._writer.begin() as connection:
            changed = update(t.questions).where(*where).values(values).returning(t.questions)
            row = connection.execute(changed).mappings().one_or_none()
        return None if row is None else Question.of(row)


def answer_file(question_id: str) -> str:
    """The answer's name among the run's files."""
    return f"questions/{question_id}.json"


def material_file(question_id: str) -> str:
    """The name of the token records that a question is about."""
    return f"questions/{question_id}.arrow"


def remove_files(files: RunFiles, question_id: str) -> None:
    """Delete what a question left behind; fine if it left nothing."""
    for name in (answer_file(question_id), material_file(question_id)):
        files.remove(name)


def _held(question_id: str, tries: int) -> tuple[ColumnElement[bool], ...]:
    questions = t.questions.c
    return questions.id == question_id, questions.tries == tries, questions.status == "working"
