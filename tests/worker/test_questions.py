"""A question's way through a worker: answered, refused, too slow, given back, lost."""

from __future__ import annotations

import sys
import textwrap
import threading

import pytest

from opd_core.runs.artifacts import job_files
from opd_core.runs.questions import Questions, answer_file
from tests.worker.conftest import is_running
from worker import questions as door
from worker.questions import Answering

ANSWERS = """
import argparse, json, os, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--question"); parser.add_argument("--out")
given = parser.parse_args()
question = json.loads(pathlib.Path(given.question).read_text())
def say(**message): print(json.dumps(message), flush=True)
out = pathlib.Path(given.out.removeprefix("file://")) / "questions"
out.mkdir(parents=True, exist_ok=True)
(out / "pid").write_text(str(os.getpid()))
say(type="phase", phase="thinking")
print("no message", flush=True)
mode = question["request"]["mode"]
if mode == "answer":
    (out / f"{question['id']}.json").write_text(json.dumps(question["spec"]))
elif mode == "refuse":
    say(type="error", error=dict(code="unknown_words", message="prompt: no", param="prompt", category="user"))
    sys.exit(2)
elif mode == "crash":
    sys.exit("something broke")
elif mode == "sleep":
    time.sleep(60)
"""


@pytest.fixture
def desk(bench, tmp_path):
    """mode -> (a claimed question, the try at it)."""
    script = tmp_path / "answers.py"
    script.write_text(textwrap.dedent(ANSWERS))
    questions = Questions(bench.store.engine)
    job = bench.submit()

    def make(mode: str, **settings):
        question = questions.claim(questions.ask(job.id, "probe", {"mode": mode}).id, 30)
        files = job_files(bench.settings.artifacts_url, job.id)
        chosen = bench.settings.model_copy(update=settings)
        command = (sys.executable, str(script))
        return question, Answering(question, questions, files, chosen, draining=bench.drain.is_set, command=command)

    make.questions, make.files = questions, job_files(bench.settings.artifacts_url, job.id)
    return make


def test_an_answer_is_a_file_and_a_closed_question(desk):
    question, answering = desk("answer")
    assert answering.run({"seed": 3}) == "answered"
    assert desk.questions.get(question.id).status == "answered"
    assert desk.files.read_json(answer_file(question.id)) == {"seed": 3}


def test_a_refusal_keeps_its_sentence(desk):
    question, answering = desk("refuse")
    assert answering.run({}) == "failed"
    closed = desk.questions.get(question.id)
    assert (closed.status, closed.error["param"], closed.error["message"]) == ("failed", "prompt", "prompt: no")


def test_a_crash_is_a_failure(desk):
    question, answering = desk("crash")
    assert answering.run({}) == "failed"
    assert desk.questions.get(question.id).error["code"] == "crashed"


def test_a_silent_end_without_a_file_is_no_answer(desk):
    question, answering = desk("nothing")
    assert answering.run({}) == "failed"
    assert desk.questions.get(question.id).status == "failed"


def child_of(desk) -> int:
    return int(desk.files.read_bytes("questions/pid"))


def test_what_takes_too_long_is_ended(desk):
    question, answering = desk("sleep", question_s=2.0)
    assert answering.run({}) == "failed"
    assert desk.questions.get(question.id).error["code"] == "too_long"
    assert not is_running(child_of(desk))


def test_a_worker_that_leaves_gives_its_question_back(desk, bench):
    question, answering = desk("sleep")
    leaving = threading.Timer(2.0, bench.drain.set)
    leaving.start()
    assert answering.run({}) == "given back"
    leaving.join()
    assert (desk.questions.get(question.id).status, desk.questions.get(question.id).tries) == ("waiting", 0)
    assert not is_running(child_of(desk))


def test_a_question_that_was_taken_away_is_left_alone(desk):
    question, answering = desk("sleep")
    desk.questions.finish(question.id, question.tries, {"code": "elsewhere"})
    assert answering.run({}) == "lost"
    assert desk.questions.get(question.id).error == {"code": "elsewhere"}


def test_the_phase_is_told_while_it_works(desk):
    _, answering = desk("sleep", question_s=3.0)
    seen: list[str] = []
    beat = desk.questions.beat
    answering._questions.beat = lambda *given: seen.append(given[-1]) or beat(*given)
    answering.run({})
    assert "thinking" in seen


def test_stray_bells_are_ignored(bench, monkeypatch):
    monkeypatch.setattr(door, "Settings", lambda: bench.settings)
    for stray in ("nonsense", "question_00000000000000000000000000", None):
        assert door.answer_question(stray) is None
