"""The oracle knows what comes next, whatever went wrong before."""

from __future__ import annotations

import random
from itertools import islice

from opd_core.tasks.oracle import write
from opd_core.tasks.word_problems import Story, solution, stories

STORY = Story(12, (5, -3), "Ann", "apples", ("buys", "loses"))


def replacing(**by_position: str):
    """A disturbance that puts given tokens at given positions (p0, p1, ...)."""
    position = iter(range(1000))

    def disturb(slot: int, token: str, change: int) -> str:
        return by_position.get(f"p{next(position)}", token)

    return disturb


def test_undisturbed_it_writes_the_solution() -> None:
    for story in islice(stories(random.Random(0), held_out=False), 200):
        written, right = write(story, lambda slot, token, change: token)
        assert written == right == [*solution(story).split(), "<eos>"]


def test_a_wrong_total_is_carried_on() -> None:
    written, right = write(STORY, replacing(p5="20"))
    assert " ".join(written) == "First 12 + 5 = 20 ; Then 20 - 3 = 17 ; answer 17 <eos>"
    assert right[5] == "17"
    assert [i for i in range(len(right)) if written[i] != right[i]] == [5]


def test_wrong_operands_are_computed_as_written() -> None:
    assert " ".join(write(STORY, replacing(p1="20"))[0]).startswith("First 20 + 5 = 25 ; Then 25 - 3 = 22 ;")
    assert " ".join(write(STORY, replacing(p2="-"))[0]).startswith("First 12 - 5 = 7 ; Then 7 - 3 = 4 ;")
    assert " ".join(write(STORY, replacing(p3="6"))[0]).startswith("First 12 + 6 = 18 ; Then 18 - 3 = 15 ;")


def test_totals_stay_within_the_vocabulary() -> None:
    assert write(STORY, replacing(p1="30"))[1][5] == "30"
    assert write(STORY, replacing(p1="1", p2="-"))[1][5] == "0"


def test_nonsense_fills_its_slot() -> None:
    written, right = write(STORY, replacing(p0="has", p2="answer", p4="7", p6="+"))
    assert " ".join(written) == "has 12 answer 5 7 17 + Then 17 - 3 = 14 ; answer 14 <eos>"
    assert " ".join(right) == "First 12 + 5 = 17 ; Then 17 - 3 = 14 ; answer 14 <eos>"


def test_a_step_out_of_order_is_gone_on_from() -> None:
    assert " ".join(write(STORY, replacing(p0="Then"))[0]) == "Then 12 - 3 = 9 ; answer 9 <eos>"
    assert " ".join(write(STORY, replacing(p7="First"))[0]).startswith(
        "First 12 + 5 = 17 ; First 17 + 5 = 22 ; Then 22 -"
    )
    assert write(STORY, replacing(p0="Finally"))[1][3] == "5"  # there is no fourth change


def test_an_early_answer_is_finished() -> None:
    written, right = write(STORY, replacing(p7="answer"))
    assert " ".join(written) == "First 12 + 5 = 17 ; answer 17 <eos>"
    assert right[7] == "Then"
    assert right[8] == "17"
    assert write(STORY, replacing(p0="<eos>")) == (["<eos>"], ["First"])
