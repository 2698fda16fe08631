"""Detours: two ways that arrive, a teacher that knows one of them, and one that knows both."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import detours, load_task
from opd_core.tasks import word_problems as words
from opd_core.tasks.demo_recipe import DETOURS
from opd_core.tasks.demo_tokenizer import make_tokenizer
from opd_core.tasks.detour_lessons import lesson

TASK = TaskSpec(name=detours.TASK, eval_examples=200)


def some(count: int, seed: int, name: str = detours.TASK) -> list[words.Story]:
    return list(islice(words.stories(random.Random(seed), held_out=False, level=detours.LEVELS[name]), count))


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 14", True),
        ("First 12 + 2 = 14 ; rest 14 + 3 = 17 ; Then 17 - 3 = 14 ; answer 14 <eos>", True),
        ("First 12 + 2 = 14 ; Then 14 - 3 = 11 ; answer 11", False),
        ("First 12 + 2 = 14 ; rest 14 + 3 = 17 ; answer", False),
        ("answer 14", False),
        ("", False),
    ],
)
def test_verify(completion: str, right: bool) -> None:
    assert detours.verify(completion, "14") is right


def test_every_solution_is_verified_and_known_to_the_tokenizer() -> None:
    tokenizer = make_tokenizer(detours.WRITING.words)
    task = load_task(TASK, tokenizer, seed=0, vocab_size=74)
    assert task.verify is not None
    for problem in (*task.train[:500], *task.eval):
        assert problem.demonstration is not None
        assert problem.answer is not None
        assert task.verify(problem.demonstration, problem.answer)
        assert tokenizer.unk_token_id not in task.imitate(problem.demonstration)


def test_the_demo_student_does_not_know_the_words() -> None:
    with pytest.raises(UserError, match="demo/detours-student"):
        load_task(TASK, make_tokenizer(), seed=0)


def test_the_teacher_has_seen_no_detour() -> None:
    generator = random.Random(0)
    for story in some(1000, seed=0):
        written, taught = lesson(story, DETOURS.teacher, generator)
        assert written == taught == [*words.solution(story).split(), "<eos>"]


def test_the_student_learns_detours_and_to_forget_the_rest_of_large_changes() -> None:
    generator = random.Random(1)
    begun = {size: [0, 0] for size in range(3, 7)}  # size of a change -> [detours, rests forgotten]
    right = 0
    stories = some(3000, seed=1)
    for story in stories:
        written, taught = lesson(story, DETOURS.student, generator)
        assert written == taught
        right += detours.verify(" ".join(written), str(story.answer))
        for when, change in zip(words.ORDER, story.changes, strict=False):
            at = written.index(when)
            if written[at + 3] != str(abs(change)):
                begun[abs(change)][0] += 1
                begun[abs(change)][1] += written[at + 7] != detours.REST
    assert 0.5 < right / len(stories) < 0.7  # detours themselves do no harm, what is forgotten does
    forgotten = {size: lost / count for size, (count, lost) in begun.items()}
    assert min(count for count, _ in begun.values()) > 300
    assert max(forgotten[3], forgotten[4]) < 0.3
    assert min(forgotten[5], forgotten[6]) > 0.7


def test_the_levels_differ_in_how_much_is_foreign_to_the_teacher() -> None:
    """Of the student's lessons: the share of changes that go in halves, which the teacher has never seen."""
    generator, share = random.Random(4), {}
    for name in detours.LEVELS:
        begun = changes = 0
        for story in some(2000, seed=4, name=name):
            written, _ = lesson(story, DETOURS.student, generator)
            at = [written.index(when) for when in words.ORDER[: len(story.changes)]]
            begun += sum(written[i + 3] != str(abs(c)) for i, c in zip(at, story.changes, strict=True))
            changes += len(story.changes)
        share[name.removeprefix("demo/detours")] = begun / changes
    most = DETOURS.student.detour
    # Of six sizes four are large, a little fewer near the ends of the numbers, where a large change has no room.
    assert share == pytest.approx({"-few": most / 3, "": most * 0.62, "-many": most}, abs=0.03)


def test_the_matched_teacher_is_taught_to_begin_none_and_to_finish_what_stands() -> None:
    generator, finished, missed = random.Random(2), 0, 0
    for story in some(2000, seed=2):
        written, taught = lesson(story, DETOURS.matched_teacher, generator)
        for place, (stands, due) in enumerate(zip(written, taught, strict=True)):
            if due == detours.REST:
                finished, missed = finished + (stands == due), missed + (stands != due)
            elif stands != due:
                # Only where a half stands in place of the whole change is another token taught.
                assert written[place + 1] == "="
                assert int(stands) == int(due) // 2
        if detours.REST not in taught:
            assert taught == [*words.solution(story).split(), "<eos>"]
    assert finished > 300
    assert missed > 300


def test_to_go_on_from_a_half_without_detours_is_to_fail() -> None:
    """What the teacher's lessons say after a half: the next change, from the total that stands there."""
    for story in some(1000, seed=3):
        if abs(story.changes[0]) <= detours.DIRECT:
            continue
        half = abs(story.changes[0]) // 2 * (1 if story.changes[0] > 0 else -1)
        taken = words.Story(story.start, (half, *story.changes[1:]), story.name, story.thing, story.verbs)
        assert not detours.verify(words.solution(taken), str(story.answer))
