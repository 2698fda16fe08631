"""Runs at equal tokens, read at equal prompts."""

from __future__ import annotations

from typing import Any

import pytest

from cli.bench.cells import Matrix
from cli.bench.markdown import as_markdown
from cli.bench.plan import Plan
from cli.bench.record import Record
from cli.bench.results import results
from tests.bench.test_results import PROBLEMS, SKILL, planned, simulated

REACHED = {"plain": 0.4, "copy": 0.4, "better": 0.7, "dead": 0.2}  # at step 25
BUDGET = {"teacher_tokens": 1000}
PER_STEP = 32  # prompts_per_step by default


def at_equal_tokens(seeds: int = 3, **changes: Any) -> tuple[Plan, Matrix, list[Record]]:
    """Every run is examined at 0 and 25; one that writes less goes on for longer, and is examined at 50 too."""
    asked, found = planned(seeds, budget=BUDGET, **changes)
    records = []
    for record in simulated(found, SKILL):
        later = {50.0: 0.9} if record.arm == "better" else {}
        points = {0.0: 0.2, 25.0: REACHED[record.arm] + 0.01 * record.seed, **later, 40.0 + len(later) * 13: 0.95}
        spent = [40.0 * step for step in points]
        known = {"step": list(points), "accuracy": list(points.values()), "teacher_tokens": spent}
        records.append(record.model_copy(update={"curve": known}))
    return asked, found, records


def test_arms_are_compared_at_the_last_step_at_which_all_were_examined():
    told = results(*at_equal_tokens())["equal_prompts"]
    assert told["where"]["base"] == {"steps": 25, "prompts": 25 * PER_STEP, "left_out": []}
    assert list(told["arms"]["base"]) == ["untrained", "plain", "copy", "better", "dead", "teacher"]
    arm = told["arms"]["base"]["better"]
    assert arm["value"] == pytest.approx(0.71)  # the mean of 0.70, 0.71 and 0.72
    assert arm["low"] < 0.71 < arm["high"]
    better, copy, dead = told["contrasts"]
    assert better["estimate"]["value"] == pytest.approx(0.3)
    assert copy["estimate"]["value"] == pytest.approx(0.0)
    assert dead["name"] == "dead - untrained"
    assert dead["estimate"] is not None


def test_two_tasks_count_the_same_and_only_seeds_vary():
    asked, found, records = at_equal_tokens(3, tasks=[{"name": "near"}, {"name": "far"}])
    lead = {"near": (0.0, 0.1, 0.2), "far": (0.5, 0.6, 0.7)}  # of better over plain, beside the 0.3 that it has
    for record in records:
        if record.arm == "better":
            record.curve["accuracy"][1] += lead[record.task][record.seed] - 0.3
    one = results(asked, found, records)["equal_prompts"]["contrasts"][0]["estimate"]
    assert (one["value"], one["problems"]) == (pytest.approx(0.35), 1)
    assert one["high"] - one["value"] == pytest.approx(4.303 * 0.1 / 3**0.5, rel=0.15)  # t of two degrees of freedom


def test_nothing_is_tested_a_second_time():
    told = results(*at_equal_tokens(10))
    assert [one["tested"] for one in told["contrasts"]] == [True] * 3
    assert [(one["tested"], one["p"]) for one in told["equal_prompts"]["contrasts"]] == [(False, None)] * 3


def test_arms_with_other_numbers_of_prompts_a_step_are_left_out():
    asked, found, records = at_equal_tokens()
    for record in records:
        if record.arm == "dead":
            record.report["spec"]["rollout"]["prompts_per_step"] = 4
            record.curve["step"] = [0.0, 10.0, 90.0]  # would leave no common step
    told = results(asked, found, records)["equal_prompts"]
    assert told["where"]["base"] == {"steps": 25, "prompts": 25 * PER_STEP, "left_out": ["dead"]}
    assert "dead" not in told["arms"]["base"]
    assert told["contrasts"][2]["estimate"] is None


def test_a_failed_run_counts_with_the_student_it_began_with():
    asked, found, records = at_equal_tokens()
    place = next(place for place, record in enumerate(records) if (record.arm, record.seed) == ("better", 0))
    gone = {"status": "failed", "report": None, "curve": {"step": [0.0], "accuracy": [0.2]}}
    records[place] = records[place].model_copy(update=gone)
    told = results(asked, found, records)["equal_prompts"]
    began = sum(records[place].outcomes.before) / PROBLEMS
    assert told["where"]["base"]["steps"] == 25
    assert told["arms"]["base"]["better"]["value"] == pytest.approx((began + 0.71 + 0.72) / 3)


@pytest.mark.parametrize("why", ["no budget", "no common step"])
def test_without_a_second_view_the_report_has_none(why):
    asked, found, records = at_equal_tokens()
    if why == "no budget":
        asked = asked.model_copy(update={"budget": None})
    else:
        records[0].curve["step"] = [0.0, 24.0, 40.0]
    told = results(asked, found, records)
    assert told["equal_prompts"] is None
    assert "equal prompts" not in as_markdown(told | {"machine": {}})


def test_the_report_says_both():
    text = as_markdown(results(*at_equal_tokens()) | {"machine": {}})
    assert "## At equal prompts: base" in text
    assert f"after 25 steps, when each had seen {25 * PER_STEP} prompts" in text
    assert "| better - plain | +30.0 | +30.0 to +30.0 | 3 |" in text
