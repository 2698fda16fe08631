"""The demo task: right arithmetic, a fair split, a verifier that cannot be talked round."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from transformers import AutoTokenizer

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import load_task, oracle
from opd_core.tasks import word_problems as words
from opd_core.tasks.demo_tokenizer import make_tokenizer
from opd_core.tasks.load import BUILT_IN

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


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_level_is_large_and_keeps_its_limits(name: str) -> None:
    """Also with as many held-out problems as a spec may ask for."""
    writing, level = BUILT_IN[name]
    tokenizer = make_tokenizer(writing.words)
    task = load_task(TaskSpec(name=name, eval_examples=10_000), tokenizer, seed=0, vocab_size=len(tokenizer))
    fewest, most = level.changes
    tags = {f"changes-{count}" for count in range(fewest, most + 1)}
    assert {problem.tag for problem in task.train} == {problem.tag for problem in task.eval} == tags
    prompts = {problem.prompt for problem in (*task.train, *task.eval)}
    assert len(prompts) == 34_000
    told = [prompt.split() for prompt in prompts]
    smallest, largest = level.sizes
    assert {int(word) for one in told for word in one[4:] if word.isdigit()} == {*range(smallest, largest + 1)}
    assert {one[3] for one in told} == set(level.things)
    assert task.name == name


def carried(level: str, seed: int) -> tuple[float, float]:
    """Solutions with one wrong total, the first, that go on as the teacher would: (wrong answers, tokens behind it)."""
    generator = random.Random(seed)
    wrong, behind = [], []
    for story in islice(words.stories(generator, held_out=True, level=words.LEVELS[level]), 500):
        slips = iter([True])

        def slip(slot: int, token: str, _: int, slips=slips) -> str:
            return str((int(token) + 1) % 31) if slot == oracle.RESULT and next(slips, False) else token

        written, right = oracle.write(story, slip)
        first = next(place for place, (one, other) in enumerate(zip(written, right, strict=True)) if one != other)
        assert written[first + 1 :] == right[first + 1 :]  # all of it is what the teacher would write there
        behind.append(len(written) - first - 1)
        wrong.append(not words.verify(" ".join(written), str(story.answer)))
    return sum(wrong) / len(wrong), sum(behind) / len(behind)


def test_an_early_mistake_travels_as_far_as_the_level_says() -> None:
    """It decides the answer at every level; what lies between the two is longer the longer the problems are."""
    found = {name.removeprefix("demo/word-problems"): carried(name, seed=3) for name in words.LEVELS}
    assert all(wrong > 0.9 for wrong, _ in found.values())
    assert found["-short"][1] < found[""][1] < found["-long"][1]
    assert found["-long"][1] > 2.5 * found["-short"][1]


def test_the_task_is_large_distinct_and_disjoint(task) -> None:
    assert len({problem.prompt for problem in task.train}) == len(task.train) >= 20_000
    assert len({problem.prompt for problem in task.eval}) == len(task.eval) == 240
    assert len({problem.id for problem in (*task.train, *task.eval)}) == len(task.train) + 240


@pytest.mark.parametrize("name", [name for name, (_, level) in BUILT_IN.items() if level.longer])
def test_longer_problems_are_longer_than_any_of_training(name: str) -> None:
    writing, level = BUILT_IN[name]
    most = level.changes[1]
    spec = TaskSpec(name=name, eval_examples=50, ood_examples=60)
    task = load_task(spec, make_tokenizer(writing.words), seed=0)
    assert (len(task.eval), len(task.ood)) == (50, 60)
    steps = [prompt.count(" she ") + prompt.count(" he ") for prompt in (one.prompt for one in task.ood)]
    assert min(steps) > most
    assert max(one.prompt.count(" she ") + one.prompt.count(" he ") for one in task.train) == most
    assert len({problem.id for problem in (*task.train, *task.eval, *task.ood)}) == len(task.train) + 110
    again = load_task(TaskSpec(name=name, eval_examples=50), make_tokenizer(writing.words), seed=0)
    assert (again.train, again.eval, list(again.ood)) == (task.train, task.eval, [])


def test_who_has_no_longer_problems_says_so() -> None:
    with pytest.raises(UserError, match="demo/word-problems-short") as caught:
        load_task(TaskSpec(name="demo/word-problems", ood_examples=5), make_tokenizer(), seed=0)
    assert caught.value.param == "task.ood_examples"


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
