"""Questions: asked once, answered once, settled when their worker is lost."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from opd_core import recipes
from opd_core.runs import tables as t
from opd_core.runs.artifacts import RunFiles
from opd_core.runs.database import writer
from opd_core.runs.ids import is_id
from opd_core.runs.questions import (
    MAX_OPEN,
    Questions,
    TooManyQuestions,
    answer_file,
    material_file,
    remove_files,
)


@pytest.fixture
def job_id(store, spec) -> str:
    return store.create_job(spec, recipes.resolve(spec)).id


@pytest.fixture
def questions(store) -> Questions:
    return Questions(store.engine)


def set_back(store, question_id: str, **columns: float) -> None:
    """Let ``columns`` lie so many seconds in the past."""
    with writer(store.engine).begin() as connection:
        values = {name: t.db_now() - seconds for name, seconds in columns.items()}
        connection.execute(update(t.questions).where(t.questions.c.id == question_id).values(values))


def test_a_question_waits_is_worked_on_and_answered_once(questions, job_id):
    asked = questions.ask(job_id, "probe", {"prompt": "2 + 2 ="})
    assert is_id(asked.id)
    assert (asked.status, asked.tries, asked.request) == ("waiting", 0, {"prompt": "2 + 2 ="})
    claimed = questions.claim(asked.id, 30)
    assert claimed is not None
    assert (claimed.status, claimed.tries) == ("working", 1)
    assert questions.claim(asked.id, 30) is None
    assert questions.beat(asked.id, 1, 30, "loading models")
    assert questions.get(asked.id).phase == "loading models"
    assert questions.finish(asked.id, 1)
    done = questions.get(asked.id)
    assert (done.status, done.error) == ("answered", None)
    assert done.finished_at is not None
    assert not questions.finish(asked.id, 1, {"code": "late"})
    assert not questions.beat(asked.id, 1, 30, "late")
    assert questions.get(asked.id).status == "answered"


def test_ids_sort_by_time(questions, job_id):
    ids = [questions.ask(job_id, "probe", {}).id for _ in range(5)]
    assert ids == sorted(ids)


def test_a_failed_question_keeps_its_error(questions, job_id):
    asked = questions.ask(job_id, "replan", {})
    questions.claim(asked.id, 30)
    error = {"code": "missing_feedback", "message": "it needs rewards", "param": "method"}
    assert questions.finish(asked.id, 1, error)
    assert (questions.get(asked.id).status, questions.get(asked.id).error) == ("failed", error)


def test_a_lost_worker_is_replaced_once_and_then_the_question_fails(questions, store, job_id):
    asked = questions.ask(job_id, "replan", {})
    assert questions.due(30) == [asked.id]
    questions.mark_rung(asked.id)
    assert questions.due(30) == []
    questions.claim(asked.id, 30)
    assert questions.due(0) == []  # somebody works on it
    set_back(store, asked.id, lease_until=1)
    assert questions.due(30) == [asked.id]
    assert not questions.finish(asked.id, 1)  # the lost worker comes back too late
    assert questions.claim(asked.id, 30).tries == 2
    set_back(store, asked.id, lease_until=1)
    assert questions.due(30) == []
    assert questions.get(asked.id).status == "failed"
    assert questions.get(asked.id).error["code"] == "worker_lost"


def test_an_unheard_bell_is_rung_again(questions, store, job_id):
    asked = questions.ask(job_id, "replan", {})
    questions.mark_rung(asked.id)
    set_back(store, asked.id, rung_at=31)
    assert questions.due(30) == [asked.id]


def test_a_question_that_is_given_back_is_as_it_was(questions, job_id):
    asked = questions.ask(job_id, "replan", {})
    questions.mark_rung(asked.id)
    questions.claim(asked.id, 30)
    assert questions.give_back(asked.id, 1)
    back = questions.get(asked.id)
    assert (back.status, back.tries) == ("waiting", 0)
    assert questions.due(30) == [asked.id]  # its bell was heard by the one that left


def test_not_too_many_wait_at_a_time(questions, job_id):
    first = questions.ask(job_id, "probe", {})
    for _ in range(MAX_OPEN - 1):
        questions.ask(job_id, "probe", {})
    with pytest.raises(TooManyQuestions, match=f"{MAX_OPEN} questions are waiting"):
        questions.ask(job_id, "probe", {})
    questions.claim(first.id, 30)
    questions.finish(first.id, 1)
    questions.ask(job_id, "probe", {})


def test_old_answers_are_removed_with_their_files(questions, store, job_id, tmp_path):
    files = RunFiles(tmp_path)
    old, young, open_ = (questions.ask(job_id, "probe", {}) for _ in range(3))
    for one in (old, young):
        questions.claim(one.id, 30)
        questions.finish(one.id, 1)
        files.write_json(answer_file(one.id), {})
    files.write_bytes(material_file(old.id), b"records")
    set_back(store, old.id, finished_at=1000, created_at=1000)
    set_back(store, open_.id, created_at=1000)
    assert [one.id for one in questions.outdated(999)] == [old.id]
    remove_files(files, old.id)
    questions.remove(old.id)
    assert questions.get(old.id) is None
    assert files.list("questions") == [f"{young.id}.json"]


def test_the_questions_of_a_removed_job_go_with_it(questions, store, job_id):
    asked = questions.ask(job_id, "probe", {})
    with writer(store.engine).begin() as connection:
        connection.execute(t.jobs.delete().where(t.jobs.c.id == job_id))
    assert questions.get(asked.id) is None
