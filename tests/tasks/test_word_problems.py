"""The demo task: right arithmetic, a fair split, a verifier that cannot be talked round."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from transformers import AutoTokenizer

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import load_task
from opd_core.tasks import word_problems as words
from opd_core.tasks.demo_tokenizer import make_tokenizer

TASK = TaskSpec(name="demo/word-problems", eval_examples=240)
STORY = words.Story(12, (5, -3), "Ann", "apples", ("buys", "loses"))


@pytest.fixture(scope="module")
def task():
    return load_task(TASK, make_tokenizer(), seed=0, vocab_size=73)


def test_an_example() -> None:
    assert STORY.prompt == "Ann has 12 apples . First she buys 5 . Then she loses 3 . How many ?"
    assert words.solution(STORY) == "First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 14"
    assert STORY.answer == 14


def test_stories_keep_their_limits() -> None:
    lengths = set()
    for story in islice(words.stories(random.Random(0), held_out=False), 2000):
        totals = [story.start]
        for change in story.changes:
            assert 1 <= abs(change) <= 6
            totals.append(totals[-1] + change)
        assert 0 <= min(totals) <= max(totals) <= 30
        assert totals[-1] == story.answer
        lengths.add(len(story.changes))
    assert lengths == {1, 2, 3, 4}


def test_the_task_is_large_distinct_and_disjoint(task) -> None:
    assert len({problem.prompt for problem in task.train}) == len(task.train) >= 20_000
    assert len({problem.prompt for problem in task.eval}) == len(task.eval) == 240
    assert len({problem.id for problem in (*task.train, *task.eval)}) == len(task.train) + 240


def test_no_examination_holds_nothing_out() -> None:
    assert words.distinct_stories(0, seed="eval 0", held_out=True) == []


def test_no_arithmetic_of_the_examination_is_ever_trained(task) -> None:
    """Not only the text: start and changes of a held-out problem never occur in training, for any seed."""

    def numbers(prompt: str) -> tuple[str, ...]:
        gain = set(words.GAINS)
        tokens = prompt.split()
        signed = [
            ("+" if tokens[i - 1] in gain else "-") + token
            for i, token in enumerate(tokens)
            if token.isdigit() and i > 2
        ]
        return (tokens[2], *signed)

    other = load_task(TASK, make_tokenizer(), seed=1)
    trained = {numbers(problem.prompt) for problem in (*task.train, *other.train)}
    examined = {numbers(problem.prompt) for problem in (*task.eval, *other.eval)}
    assert not trained & examined


def test_a_seed_is_a_task(task) -> None:
    again, other = (load_task(TASK, make_tokenizer(), seed=seed) for seed in (0, 1))
    assert (again.train, again.eval) == (task.train, task.eval)
    assert other.train != task.train
    assert other.eval != task.eval


def test_everything_is_in_the_vocabulary(task) -> None:
    tokenizer = make_tokenizer()
    assert 70 <= len(tokenizer) <= 140
    for problem in (*task.train[:3000], *task.eval):
        ids = task.encode(problem)
        assert tokenizer.unk_token_id not in ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == problem.prompt
    for story in islice(words.stories(random.Random(1), held_out=True), 200):
        text = words.solution(story)
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_tokenizer_is_an_ordinary_one(tmp_path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(STORY.prompt)["input_ids"] == tokenizer(STORY.prompt)["input_ids"]
    assert (loaded.pad_token, loaded.eos_token) == ("<pad>", "<eos>")


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 14", True),
        ("First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 14 <eos>", True),
        ("First 12 + 5 = 18 ; Then 18 - 3 = 14 ; answer 14", True),  # the final number decides
        ("First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 15", False),
        ("First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 14 ; answer 14", False),
        ("First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 14 14", False),
        ("First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer", False),
        ("First 12 + 5 = 17 ; Then 17 - 3 = 14 ;", False),
        ("answer 14", False),
        ("14", False),
        ("First 12 + = 17 ; answer 14", False),
        ("12 + 5 = 17 ; 17 - 3 = 14 ; answer 14", False),
        ("", False),
    ],
)
def test_verify(completion: str, right: bool) -> None:
    assert words.verify(completion, "14") is right


def test_every_solution_is_verified() -> None:
    for story in islice(words.stories(random.Random(2), held_out=True), 300):
        assert words.verify(words.solution(story), str(story.answer))
        assert not words.verify(words.solution(story), str(story.answer + 1))


def test_a_student_of_other_words_is_refused(plain_tokenizer) -> None:
    with pytest.raises(UserError, match="demo/student") as caught:
        load_task(TASK, plain_tokenizer, seed=0)
    assert caught.value.param == "task.name"
