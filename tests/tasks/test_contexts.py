"""What a teacher reads beside the prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import Problem, check_context
from opd_core.tasks.contexts import imitate, read
from opd_core.tasks.load import load_task
from opd_core.tasks.prompts import Prompts


@pytest.fixture
def tokenizer(tiny_world):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_world.student)


@pytest.fixture
def prompts(tokenizer):
    return Prompts(tokenizer, "plain", None)


PROBLEM = Problem(0, "1 + 2 =", "3", raw="1 + 2 =", demonstration="1 + 2 = 3")


def test_places_are_filled_once(prompts, tokenizer):
    tricky = replace(PROBLEM, demonstration="{answer}{prompt}")
    ids = read(prompts, tricky, "{demonstration} | {prompt} | {answer}", None)
    assert tokenizer.decode(ids) == tokenizer.decode(tokenizer("{answer}{prompt} | 1 + 2 = | 3")["input_ids"])


@pytest.mark.parametrize(
    ("context", "problem", "solution"),
    [
        ("{prompt} {solution}", PROBLEM, None),
        ("{prompt} {answer}", replace(PROBLEM, answer=None), "3"),
        ("{prompt} {demonstration}", replace(PROBLEM, demonstration=None), "3"),
    ],
)
def test_without_the_privilege_the_bare_prompt_is_read(prompts, context, problem, solution):
    assert read(prompts, problem, context, solution) == prompts.encode("1 + 2 =")


def test_the_last_of_several_messages_is_set_into_the_context(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    chat = Prompts(tokenizer, "chat", None)
    messages = [{"role": "system", "content": "sums"}, {"role": "user", "content": "1 + 2"}]
    problem = Problem(0, chat.render(messages), "3", raw=messages)
    ids = read(chat, problem, "{prompt} is {answer}", None)
    assert ids == chat.encode("<system>sums<user>1 + 2 is 3")


def test_a_solution_ends_with_one_end_of_sequence(tokenizer):
    ids = imitate(tokenizer, "1 + 2 = 3")
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.eos_token_id) == 1
    assert imitate(tokenizer, "1 + 2 = 3<eos>") == ids


def test_words_that_the_tokenizer_does_not_know_are_refused(tmp_path, monkeypatch):
    from opd_core.tasks.demo_tokenizer import make_tokenizer

    tokenizer = make_tokenizer()
    task = load_task(TaskSpec(name="demo/word-problems", eval_examples=2), tokenizer, seed=0)
    check_context(task, "{demonstration} {prompt}", tokenizer, param="teacher.context", vocab_size=len(tokenizer))
    with pytest.raises(UserError, match="does not know some of its words") as raised:
        check_context(task, "Behold: {prompt}", tokenizer, param="teacher.context", vocab_size=len(tokenizer))
    assert raised.value.param == "teacher.context"


def test_the_demo_task_shows_worked_solutions_and_tags():
    from opd_core.tasks.demo_tokenizer import make_tokenizer

    task = load_task(TaskSpec(name="demo/word-problems", eval_examples=20), make_tokenizer(), seed=0)
    for problem in task.eval:
        assert task.verify(problem.demonstration, problem.answer)
        assert problem.tag == f"changes-{problem.demonstration.count(';')}"
