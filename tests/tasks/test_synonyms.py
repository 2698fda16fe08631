"""Near-synonyms: the numbers are right, the words are not, and where a word's mass goes decides."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice

import pytest
import torch

from opd_core.objective.routing import counterfactual_route
from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import load_task, synonyms
from opd_core.tasks import word_problems as words
from opd_core.tasks.demo_recipe import SYNONYMS
from opd_core.tasks.demo_tokenizer import make_tokenizer
from opd_core.tasks.synonym_lessons import HABIT, lesson

STORY = words.Story(12, (5, -3), "Ann", "apples", ("buys", "loses"))
TASK = TaskSpec(name=synonyms.TASK, eval_examples=200)


def some(count: int, seed: int, name: str = synonyms.TASK) -> list[words.Story]:
    return list(islice(words.stories(random.Random(seed), held_out=False, level=synonyms.LEVELS[name]), count))


def number(tokens: list[str]) -> str:
    return tokens[tokens.index("answer") + 1]


def test_an_example() -> None:
    assert synonyms.solution(STORY) == "First 12 + 5 makes 17 ; Then 17 - 3 makes 14 ; answer 14 apples"
    assert synonyms.answer(STORY) == "14 apples"


def test_every_word_belongs_to_one_thing() -> None:
    assert [word for thing in words.THINGS for word in synonyms.belonging(thing)] == list(synonyms.WORDS)
    assert len(set(synonyms.WORDS)) == 12
    assert not set(synonyms.WORDS) & set(make_tokenizer().get_vocab())


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("First 12 + 5 makes 17 ; Then 17 - 3 makes 14 ; answer 14 apples", True),
        ("First 12 + 5 makes 17 ; Then 17 - 3 equals 14 ; answer 14 apples <eos>", True),
        ("First 12 + 5 makes 17 ; Then 17 - 3 is 14 ; answer 14 apples", False),  # a word of the books
        ("First 12 + 5 is 17 ; Then 17 - 3 is 14 ; answer 14 books", False),
        ("First 12 + 5 makes 17 ; Then 17 - 3 makes 14 ; answer 14 books", False),
        ("First 12 + 5 makes 17 ; Then 17 - 3 makes 15 ; answer 15 apples", False),
        ("First 12 + 5 = 17 ; Then 17 - 3 makes 14 ; answer 14 apples", False),
        ("First 12 + 5 makes 17 ; Then 17 - 3 makes 14 ; answer 14", False),
        ("answer 14 apples", False),
        ("", False),
    ],
)
def test_verify(completion: str, right: bool) -> None:
    assert synonyms.verify(completion, "14 apples") is right


def test_every_solution_is_verified_and_known_to_the_tokenizer() -> None:
    task = load_task(TASK, make_tokenizer(synonyms.WRITING.words), seed=0, vocab_size=85)
    assert task.verify is not None
    for problem in (*task.train[:500], *task.eval):
        assert problem.demonstration is not None
        assert problem.answer is not None
        assert task.verify(problem.demonstration, problem.answer)
        assert make_tokenizer(synonyms.WRITING.words).unk_token_id not in task.imitate(problem.demonstration)


def test_the_demo_student_does_not_know_the_words() -> None:
    with pytest.raises(UserError, match="demo/synonyms-student") as caught:
        load_task(TASK, make_tokenizer(), seed=0)
    assert caught.value.param == "task.name"


def test_what_the_student_is_taught_last_is_right_in_all_but_the_words() -> None:
    begin, end = SYNONYMS.student.at(0.0), replace(SYNONYMS.student.at(1.0), disturbance=0.0)
    assert begin == SYNONYMS.student
    generator, fitting, total = random.Random(1), 0, 0
    for story in some(2000, seed=0):
        written, taught = lesson(story, end, generator)
        assert written == taught
        assert (number(written), written[-2:]) == (str(story.answer), [story.thing, "<eos>"])
        said = [word for word in written if word in synonyms.WORDS]
        assert len(said) == len(story.changes)
        fitting, total = fitting + sum(word in synonyms.belonging(story.thing) for word in said), total + len(said)
    assert fitting / total < 0.2


def test_the_levels_differ_in_how_seldom_the_student_says_what_belongs() -> None:
    """Of the student's last lessons: the share of its words that belong, the more so the nearer the level."""
    end, generator, share = replace(SYNONYMS.student.at(1.0), disturbance=0.0), random.Random(3), {}
    for name in synonyms.LEVELS:
        said = [
            word in synonyms.belonging(story.thing)
            for story in some(2000, seed=2, name=name)
            for word in lesson(story, end, generator)[0]
            if word in synonyms.WORDS
        ]
        share[name.removeprefix("demo/synonyms")] = sum(said) / len(said)
    assert share == pytest.approx({"-near": 0.26, "": 1 / 6, "-far": 0.09}, abs=0.03)


def test_the_teacher_is_taught_what_belongs_whatever_stands_before() -> None:
    generator, strange = random.Random(2), 0
    for story in some(2000, seed=1):
        written, taught = lesson(story, SYNONYMS.teacher, generator)
        own = synonyms.belonging(story.thing)
        for stands, due in zip(written, taught, strict=True):
            if due in synonyms.WORDS:
                assert due in own
                strange += stands not in own
    assert strange > 1000  # it has met the student's words


@pytest.mark.parametrize("thing", words.THINGS)
def test_softmax_sends_a_wrong_words_mass_to_other_wrong_words(thing: str) -> None:
    """With the chances that are taught: the routed share that reaches the words that belong, against softmax alone."""
    own = [synonyms.WORDS.index(word) for word in synonyms.belonging(thing)]
    student = torch.tensor([HABIT])
    assert float(student.sum()) == pytest.approx(1.0)
    assert float(student[0, own].min()) > 0.03  # within reach
    teacher = torch.full((1, 12), 1e-6)
    teacher[0, own] = 0.5
    teacher /= teacher.sum()
    for word in range(12):
        if word in own:
            continue
        route = counterfactual_route(
            student.log(), teacher.log(), torch.tensor([word]), student_top_k=16, teacher_top_k=8, weighting="teacher"
        )
        assert float(route.weights[torch.isin(route.ids, torch.tensor(own))].sum()) == pytest.approx(1.0)
        left = student[0].clone()
        left[word] = 0.0
        assert float(left[own].sum() / left.sum()) < 0.4
