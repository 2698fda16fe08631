"""``opd whatif`` and ``opd probe``: how answers read."""

from __future__ import annotations

import pytest
from rich.console import Console

from api import answers
from api.schemas import Question
from cli.answers import show_probe, show_replan
from tests.api.test_questions import replanned
from tests.runs.test_records import row

WORDS = ["<pad>", "Ann\x1b[31m", "[red]has[/red]"]
BASE = {
    "id": "question_1",
    "job_id": "job_1",
    "request": {},
    "phase": "answered",
    "created_at": 0,
    "finished_at": 1,
    "error": None,
}


def printed(show, question) -> str:
    console = Console(width=200, record=True, color_system=None)
    show(question, console)
    return console.export_text()


@pytest.fixture
def what_if() -> Question:
    request = {"step": 3, "recipe": "tip", "method": {}}
    reasons = {"gate": ["too few sequences"], "coefficient": ["too few sequences"], "return": []}
    result = answers.replan(request, {"rows": [replanned(row(3))], "replanned": reasons, "recorded": {}}, WORDS)
    return Question.model_validate(BASE | {"kind": "replan", "status": "answered", "result": result})


def test_a_what_if_shows_both_plans_and_what_is_approximate(what_if):
    text = printed(show_replan, what_if)
    assert "step 3, sequence 0" in text
    assert "3.010 -> 2.000" in text  # the coefficient
    assert "Ann\\x1b[31m +0.250" in text  # the route, and no control character
    assert "[red]has[/red]" in text
    assert "\x1b" not in text
    assert "approximate: gate, coefficient: too few sequences" in text


def test_a_probe_shows_what_was_written_and_what_the_teacher_prefers():
    answer = {
        "checkpoint": None,
        "step": 0,
        "row": {**row(0), "probe_ids": None},
        "approximate": {},
        "notes": ["no verified answer"],
    }
    question = Question.model_validate(
        BASE | {"kind": "probe", "status": "answered", "result": answers.probe(answer, WORDS)}
    )
    text = printed(show_probe, question)
    assert "the start of the run: 2 + 1" in text
    assert "no verified answer" in text


def test_a_failure_is_one_sentence(what_if):
    error = {"code": "x", "message": "prompt: [b]no[/b]", "param": "prompt", "category": "user"}
    failed = what_if.model_copy(update={"status": "failed", "result": None})
    failed = Question.model_validate(failed.model_dump() | {"error": error})
    assert printed(show_replan, failed).strip() == "prompt: [b]no[/b]"
    assert printed(show_probe, failed).strip() == "prompt: [b]no[/b]"
