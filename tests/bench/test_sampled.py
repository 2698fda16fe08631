"""Runs by the samples that they drew, beside their greedy answers."""

from __future__ import annotations

import csv
import io

import pytest

from cli.bench.cells import Matrix
from cli.bench.markdown import as_markdown
from cli.bench.plan import Plan
from cli.bench.record import Record
from cli.bench.results import results
from cli.bench.sheet import as_csv
from tests.bench.test_plan import BASE
from tests.bench.test_results import PROBLEMS, SKILL, planned, simulated

K = 4
SOLVED = {"plain": 2, "copy": 2, "better": 1, "dead": 3}  # of K samples of every problem: "better" is only so greedily


def with_samples(seeds: int = 3) -> tuple[Plan, Matrix, list[Record]]:
    schedule = {**BASE.get("schedule", {}), "pass_at_k": K}
    asked, found = planned(seeds, base={**BASE, "schedule": schedule})
    records = []
    for record in simulated(found, SKILL):
        drawn = {"samples_solved": [SOLVED[record.arm]] * PROBLEMS, "samples_solved_before": [3] * PROBLEMS}
        records.append(record.model_copy(update={"outcomes": record.outcomes.model_copy(update=drawn)}))
    return asked, found, records


def test_samples_say_what_greedy_answers_do_not():
    told = results(*with_samples(10))
    arms = told["sampled"]["arms"]["base"]
    assert {arm: one["value"] for arm, one in arms.items()} == {
        "untrained": 0.75,
        "plain": 0.5,
        "copy": 0.5,
        "better": 0.25,
        "dead": 0.75,
    }
    better, copy, dead = told["sampled"]["contrasts"]
    assert (better["estimate"]["value"], copy["estimate"]["value"], dead["estimate"]["value"]) == (-0.25, 0.0, 0.0)
    assert told["contrasts"][0]["estimate"]["low"] > 0  # greedily it is ahead
    assert [(one["tested"], one["p"]) for one in told["sampled"]["contrasts"]] == [(False, None)] * 3
    text = as_markdown(told | {"machine": {}})
    assert "## Contrasts of sampled accuracy" in text
    assert "| better - plain | -25.0 | -25.0 to -25.0 | 10 |" in text
    assert "| 25.0 % | 25.0 % to 25.0 % |" in text


@pytest.mark.parametrize("examined", [True, False])
def test_a_failed_run_counts_with_the_samples_it_began_with(examined):
    asked, found, records = with_samples()
    place = next(place for place, record in enumerate(records) if (record.arm, record.seed) == ("better", 0))
    gone = {"status": "failed", "report": None, "outcomes": records[place].outcomes if examined else None}
    records[place] = records[place].model_copy(update=gone)
    arms = results(asked, found, records)["sampled"]["arms"]["base"]
    assert arms["better"]["seeds"] == 3
    assert arms["better"]["value"] == pytest.approx((0.75 + 2 * 0.25) / 3)


def test_the_sheet_has_a_line_for_each_run():
    _, _, records = with_samples()
    rows = list(csv.DictReader(io.StringIO(as_csv(records))))
    assert {row["arm"]: float(row["sampled"]) for row in rows} == {arm: solved / K for arm, solved in SOLVED.items()}
    _, found = planned(3)
    assert {row["sampled"] for row in csv.DictReader(io.StringIO(as_csv(simulated(found, SKILL))))} == {""}


def test_without_samples_the_report_has_none():
    asked, found = planned(3)
    told = results(asked, found, simulated(found, SKILL))
    assert told["sampled"] is None
    text = as_markdown(told | {"machine": {}})
    assert "sampled accuracy" not in text
    assert "Sampled:" not in text
