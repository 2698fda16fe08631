"""The calculator: what it works out, what it says in a rollout, and what the models of its task are taught."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import load_task, tools
from opd_core.tasks import word_problems as words
from opd_core.tasks.calculator import ERROR, worked_out
from opd_core.tasks.demo_recipe import TOOLS
from opd_core.tasks.demo_tokenizer import make_tokenizer
from opd_core.tasks.environment import Disagreement, Transcript, heard
from opd_core.tasks.tool_lessons import lesson


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 + 5", "17"),
        ("-3 * (4 - 0.5)", "-10.5"),
        ("1 / 3", "0.333333333333"),
        ("100 * 10", "1000"),
        ("1e3", "1000"),
        ("1 / 0", ERROR),
        ("2 ** 9", ERROR),
        ("9" * 30 + " * " + "9" * 30, ERROR),
        ("1e999999999 * 1e999999999", ERROR),
        ("True + 1", ERROR),
        ("__import__('os')", ERROR),
        ("(" * 150, ERROR),
        ("1 +" * 80 + "1", ERROR),
        ("1 + ", ERROR),
        ("", ERROR),
        ("1\x00", ERROR),
    ],
)
def test_what_is_worked_out(expression: str, value: str) -> None:
    assert worked_out(expression) == value


@pytest.mark.parametrize(
    ("words_before", "said"),
    [
        ("First 12 + 5 calc", "= 17"),
        ("; Then 17 - 3 calc", "= 14"),
        ("Then 3 - 5 calc", "= error"),
        ("Then 30 + 6 calc", "= error"),
        ("12 + calc", "= error"),
        ("calc", "= error"),
    ],
)
def test_what_the_calculator_says(words_before: str, said: str) -> None:
    tokenizer = make_tokenizer(tools.WRITING.words)
    asked = tools.environment(tokenizer, turns=3)
    ids = tokenizer(words_before, add_special_tokens=False)["input_ids"]
    assert ids[-1] in asked.asks
    answer = asked.answer(ids)
    assert answer is not None
    assert tokenizer.decode(answer) == said
    assert len(answer) <= asked.longest


def test_every_solution_is_verified_known_and_answered_as_the_calculator_would() -> None:
    tokenizer = make_tokenizer(tools.WRITING.words)
    task = load_task(TaskSpec(name=tools.TASK, eval_examples=100, ood_examples=20), tokenizer, seed=0)
    assert task.verify is not None
    for problem in (*task.train[:300], *task.eval, *task.ood):
        assert problem.answer is not None
        transcript = task.solution(problem)
        text = tokenizer.decode(transcript.ids)
        assert tokenizer.unk_token_id not in transcript.ids
        assert task.verify(text, problem.answer)
        assert not task.verify(text, str(int(problem.answer) + 1))
        calls = text.split().count(tools.CALL)
        assert transcript.own.count(False) == 2 * calls > 0
        pairs = zip(transcript.ids, transcript.own, strict=True)
        assert tokenizer.decode([token for token, own in pairs if own]).split().count("=") == 0


def test_its_own_way_is_right_too() -> None:
    assert tools.verify("First 12 + 5 = 17 ; Then 17 - 3 calc = 14 ; answer 14 <eos>", "14")
    assert not tools.verify("First 12 + 5 calc 17 ; answer 17", "17")


def test_a_solution_with_another_answer_than_the_tools_is_told() -> None:
    tokenizer = make_tokenizer(tools.WRITING.words)
    asked = tools.environment(tokenizer, turns=3)
    ids = tokenizer("First 12 + 5 calc = 16 ;", add_special_tokens=False)["input_ids"]
    with pytest.raises(Disagreement):
        heard(ids, asked)
    assert heard(ids, None).own == [True] * len(ids)


def test_a_transcript_is_cut_at_its_actions() -> None:
    transcript = Transcript([1, 2, 3, 4, 5], [True, False, False, True, True])
    assert transcript.first(1) == Transcript([1], [True])
    assert transcript.first(2) == Transcript([1, 2, 3, 4], [True, False, False, True])
    assert transcript.first(9) == transcript
    assert transcript.stretch == [4, 5]
    assert transcript.first(1).stretch == [1]


def test_no_other_built_in_task_has_a_tool() -> None:
    spec = TaskSpec.model_validate({"name": "demo/word-problems", "tool": {"kind": "calculator"}, "eval_examples": 2})
    with pytest.raises(UserError, match="has no words to ask for it; demo/tools has") as raised:
        load_task(spec, make_tokenizer(), seed=0)
    assert raised.value.param == "task.tool"
    more = TaskSpec.model_validate({"name": tools.TASK, "tool": {"turns": 3}, "eval_examples": 2})
    environment = load_task(more, make_tokenizer(tools.WRITING.words), seed=0).environment
    assert environment is not None
    assert environment.turns == 3


def lessons(who: str, count: int) -> list[tuple[words.Story, list[str], list[str | None]]]:
    generator = random.Random(1)
    stories = islice(words.stories(generator, held_out=False, level=words.Level(changes=(1, 3))), count)
    return [(story, *lesson(story, getattr(TOOLS, who), generator)) for story in stories]


def test_nobody_is_taught_what_the_calculator_says() -> None:
    called = 0
    for who in ("teacher", "student"):
        for _, written, taught in lessons(who, 500):
            assert len(written) == len(taught)
            for place, word in enumerate(written):
                if word == tools.CALL:
                    called += 1
                    assert taught[place + 1 : place + 3] == [None, None]
                    assert written[place + 1 : place + 3] == tools.said(written[: place + 1])
            assert taught.count(None) == 2 * written.count(tools.CALL)
    assert called > 500


def test_the_teacher_is_taught_to_call_and_to_go_on_without() -> None:
    without = 0
    for _, written, taught in lessons("teacher", 500):
        for place, due in enumerate(taught):
            if due == tools.CALL and written[place] == "=":
                without += 1
                assert (taught[place + 1] or "").isdigit()
        assert "=" not in taught
    assert without > 200


def test_the_student_calls_now_and_then_and_miscounts_otherwise() -> None:
    calls = steps = right = 0
    stories = lessons("student", 1000)
    for story, written, taught in stories:
        assert all(due in (None, stands) for stands, due in zip(written, taught, strict=True))
        calls, steps = calls + written.count(tools.CALL), steps + written.count(";")
        right += tools.verify(" ".join(written), str(story.answer))
    assert 0.2 < calls / steps < 0.3
    assert 0.2 < right / len(stories) < 0.6
