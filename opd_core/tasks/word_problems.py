"""The built-in demo task: word problems solved with the running totals written out.

    Ann has 12 apples . First she buys 5 . Then she loses 3 . How many ?
    First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 14

Totals stay within 0 to 30, changes are 1 to 6, one to four of them. A fixed eighth of all arithmetic (the start and
the changes, whatever the words) is held out for evaluation: neither the task's training side nor the demo models'
schooling ever shows it, for any seed.

Three difficulties, told apart by how far a mistake travels: every total is computed from the one before, so that a
wrong one is carried to the answer. In demo/word-problems-short at most one total follows it, in demo/word-problems-long
three follow the first: there the teacher, who carries a mistake on correctly, approves of every token behind it.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import contexts
from opd_core.tasks.environment import Environment
from opd_core.tasks.prompts import Prompts
from opd_core.tasks.task import Problem, Task

TRAIN_PROBLEMS = 24_000

LARGEST_TOTAL = 30
LARGEST_CHANGE = 6
MOST_CHANGES = 4

PRONOUNS = {
    "Ann": "she",
    "Ben": "he",
    "Cleo": "she",
    "Dan": "he",
    "Eva": "she",
    "Finn": "he",
    "Gia": "she",
    "Hugo": "he",
}
THINGS = ("apples", "books", "coins", "eggs", "pens", "stamps")
ORDER = ("First", "Then", "Next", "Finally")
GAINS = ("buys", "finds", "gets", "wins")
LOSSES = ("drops", "gives", "loses", "sells")


@dataclass(frozen=True)
class Level:
    """Which problems a task has: the fewest and the most changes, the smallest and the largest change, the things.

    ``longer``: the changes of problems longer than any of training, which the models' schooling did hold; None where
    it held no such problems.
    """

    changes: tuple[int, int]
    longer: tuple[int, int] | None = None
    sizes: tuple[int, int] = (1, LARGEST_CHANGE)
    things: tuple[str, ...] = THINGS


ALL = Level(changes=(1, MOST_CHANGES))

LEVELS = {
    "demo/word-problems": ALL,
    "demo/word-problems-short": Level(changes=(1, 2), longer=(3, MOST_CHANGES)),
    "demo/word-problems-long": Level(changes=(MOST_CHANGES, MOST_CHANGES)),
}

_STEP = rf"(?:{'|'.join(ORDER)}) \d+ [+-] \d+ = \d+ ; "
_SOLUTION = re.compile(rf"(?:{_STEP})+answer (\d+)")


@dataclass(frozen=True)
class Story:
    """The arithmetic of a problem (start, signed changes) and the words it is told in."""

    start: int
    changes: tuple[int, ...]
    name: str
    thing: str
    verbs: tuple[str, ...]

    @property
    def prompt(self) -> str:
        pronoun = PRONOUNS[self.name]
        parts = [f"{self.name} has {self.start} {self.thing} ."]
        parts += [
            f"{when} {pronoun} {verb} {abs(change)} ."
            for when, verb, change in zip(ORDER, self.verbs, self.changes, strict=False)
        ]
        return " ".join([*parts, "How many ?"])

    @property
    def answer(self) -> int:
        return self.start + sum(self.changes)

    @property
    def largest_total(self) -> int:
        """The largest number that has to be written on the way."""
        return max(accumulate(self.changes, initial=self.start))

    @property
    def held_out(self) -> bool:
        """Whether the arithmetic belongs to the evaluation side."""
        signature = ",".join(map(str, (self.start, *self.changes)))
        return zlib.crc32(signature.encode()) % 8 == 0


def stories(generator: random.Random, *, held_out: bool, level: Level = ALL) -> Iterator[Story]:
    """Endless stories of one side of the split; the number of changes is uniform between the level's two bounds."""
    smallest, largest = level.sizes
    while True:
        total = start = generator.randint(0, LARGEST_TOTAL)
        made = []
        for _ in range(generator.randint(*level.changes)):
            lowest, highest = max(-largest, -total), min(largest, LARGEST_TOTAL - total)
            change = generator.choice([c for c in range(lowest, highest + 1) if abs(c) >= smallest])
            made.append(change)
            total += change
        story = Story(
            start=start,
            changes=tuple(made),
            name=generator.choice(list(PRONOUNS)),
            thing=generator.choice(level.things),
            verbs=tuple(generator.choice(GAINS if change > 0 else LOSSES) for change in made),
        )
        if story.held_out == held_out:
            yield story


def distinct_stories(count: int, *, seed: str, held_out: bool, level: Level = ALL) -> list[Story]:
    """The first ``count`` different stories of a seed."""
    found: dict[Story, None] = {}
    source = stories(random.Random(seed), held_out=held_out, level=level)  # noqa: S311
    while len(found) < count:
        found.setdefault(next(source))
    return list(found)


@dataclass(frozen=True)
class Writing:
    """How the problems of a task are worked. ``words``: one token each, beyond those of the word problems.

    ``student`` is the built-in model that can read and write it; ``answer`` is what ``verify(completion, answer)`` is
    given. ``environment(tokenizer, turns)`` is what answers the student, in a task that has one.
    """

    student: str
    words: tuple[str, ...]
    solution: Callable[[Story], str]
    answer: Callable[[Story], str]
    verify: Callable[[str, str], bool]
    environment: Callable[[PreTrainedTokenizerBase, int], Environment] | None = None


def solution(story: Story) -> str:
    """The worked solution, without the end-of-sequence token."""
    steps, total = [], story.start
    for when, change in zip(ORDER, story.changes, strict=False):
        steps.append(f"{when} {total} {'+' if change > 0 else '-'} {abs(change)} = {total + change} ;")
        total += change
    return " ".join([*steps, f"answer {total}"])


def verify(completion: str, answer: str) -> bool:
    """Well-formed (steps, then the answer, then nothing) and the final number is right."""
    return answered(completion, _SOLUTION) == answer


def answered(completion: str, solution: re.Pattern[str]) -> str | None:
    """The first group of a solution that the pattern describes from beginning to end; None for anything else.

    Blanks between words count as one, and the end-of-sequence token may stand there or not.
    """
    match = solution.fullmatch(" ".join(completion.removesuffix("<eos>").split()))
    return None if match is None else match.group(1)


def answer(story: Story) -> str:
    """The reference answer: the number."""
    return str(story.answer)


WRITING = Writing(student="demo/student", words=(), solution=solution, answer=answer, verify=verify)


def load(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, level: Level, writing: Writing) -> Task:
    """24,000 training problems, ``spec.eval_examples`` held-out ones, ``spec.ood_examples`` longer ones: by seed."""
    assert spec.name is not None
    unknown = [
        word
        for word in ("Ann", "apples", "answer", "30", *writing.words)
        if tokenizer.convert_tokens_to_ids(word) in (None, tokenizer.unk_token_id)
    ]
    if unknown:
        raise UserError(
            f"task.name: '{spec.name}' is written in the demo models' own words; the student's tokenizer has no "
            f"'{unknown[0]}' (use student {writing.student})",
            param="task.name",
            code="unsuitable_student",
        )
    train = distinct_stories(TRAIN_PROBLEMS, seed=f"train {seed}", held_out=False, level=level)
    held_out = distinct_stories(spec.eval_examples, seed=f"eval {seed}", held_out=True, level=level)
    beyond = replace(level, changes=level.longer or level.changes)
    ood = distinct_stories(spec.ood_examples, seed=f"ood {seed}", held_out=True, level=beyond)
    problems = [
        Problem(
            i,
            story.prompt,
            writing.answer(story),
            demonstration=writing.solution(story),
            tag=f"changes-{len(story.changes)}",
        )
        for i, story in enumerate([*train, *held_out, *ood])
    ]
    prompts = Prompts(tokenizer, "plain", None)
    return Task(
        name=spec.name,
        train=problems[: len(train)],
        eval=problems[len(train) :][: len(held_out)],
        verify=writing.verify,
        encode=lambda problem: list(tokenizer(problem.prompt)["input_ids"]),
        read=lambda problem, context, right: contexts.read(prompts, problem, context, right),
        imitate=lambda text: contexts.imitate(tokenizer, text),
        ood=problems[len(train) + len(held_out) :],
    )
