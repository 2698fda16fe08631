"""From simulated runs with a planted truth to the report."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from cli.bench.cells import Matrix, matrix
from cli.bench.markdown import as_markdown
from cli.bench.page import as_page
from cli.bench.plan import Plan, read
from cli.bench.record import Outcomes, Record, curve
from cli.bench.results import results
from cli.bench.sheet import as_csv
from opd_core.spec import UserError
from tests.bench.test_plan import FACTORIAL, plan

SKILL = {"plain": 1.0, "copy": 1.0, "better": 2.0, "dead": None}
ARMS = [{"name": name, "recipe": "tml-opd"} for name in SKILL]
PAIRS = [("better", "plain"), ("copy", "plain"), ("dead", "untrained")]
CONTRASTS = [{"name": f"{one} - {other}", "arm": one, "against": other} for one, other in PAIRS]
PROBLEMS = 100


def planned(seeds: int, **changes: Any) -> tuple[Plan, Matrix]:
    asked = read(plan(**{"arms": ARMS, "contrasts": CONTRASTS, "controls": [], "seeds": list(range(seeds)), **changes}))
    return asked, matrix(asked)


def solved(rng: np.random.Generator, easy: np.ndarray, skill: float) -> list[bool]:
    return list(map(bool, rng.random(len(easy)) < 1 / (1 + np.exp(-(easy + skill + rng.normal(0, 0.3))))))


def simulated(found: Matrix, skill: dict[str, float | None]) -> list[Record]:
    """Runs of arms with these skills; None never changes the student."""
    records = []
    for cell in found.cells:
        easy = np.random.default_rng((1, cell.seed)).normal(0, 1, PROBLEMS)
        before = solved(np.random.default_rng((2, cell.seed)), easy, -1.0)
        rng = np.random.default_rng((3, cell.seed, sorted(skill).index(cell.arm)))
        mine = skill[cell.arm]
        after = before if mine is None else solved(rng, easy, mine)
        tokens = [0.0, 500.0, 1000.0 + 100 * cell.seed]
        known = Outcomes(problems=list(range(PROBLEMS)), before=before, after=after, teacher=[True] * PROBLEMS)
        records.append(
            Record(
                arm=cell.arm,
                task=cell.task,
                seed=cell.seed,
                key=cell.key,
                job=f"job_{cell.label}",
                status="succeeded",
                outcomes=known,
                curve={"step": [0, 1, 2], "accuracy": [0.2, 0.4, sum(after) / PROBLEMS], "teacher_tokens": tokens},
                report=report_of(cell.resolved.model_dump(mode="json"), sum(before), sum(after)),
            )
        )
    return records


def report_of(spec: dict[str, Any], before: int, after: int) -> dict[str, Any]:
    accuracy = {"before": before / PROBLEMS, "after": after / PROBLEMS, "teacher": 1.0, "gap_recovered": None}
    budget = {
        "student_tokens": 10,
        "teacher_tokens": 1000,
        "flops": 2e9,
        "wall_s": 3.0,
        "wall_s_by_phase": {"update": 3.0},
    }
    checklist = {"models": {"student": "<b>demo</b>"}, "gates": [], "selection": None}
    return {
        "spec": spec,
        "steps": 20,
        "accuracy": accuracy,
        "budget": budget,
        "versions": {"torch": "2.12"},
        "warnings": [],
        "checklist": checklist,
    }


def test_what_was_planted_is_found():
    asked, found = planned(10)
    told = results(asked, found, simulated(found, SKILL))
    better, copy, dead = told["contrasts"]
    assert better["tested"]
    assert better["p_holm"] < 0.05
    assert better["estimate"]["low"] > 0
    assert copy["estimate"]["low"] <= 0 <= copy["estimate"]["high"]
    assert (dead["estimate"]["value"], dead["p"]) == (0.0, 1.0)
    arms = told["tasks"]["base"]["arms"]
    assert arms["dead"]["accuracy"] == arms["untrained"]["accuracy"]
    assert arms["dead"]["gap_recovered"]["value"] == 0.0
    assert arms["dead"]["forgotten"] == 0.0
    assert arms["teacher"]["accuracy"]["value"] == 1.0
    gap = arms["better"]["gap_recovered"]
    mean, start = arms["better"]["accuracy"]["value"], arms["better"]["before"]
    assert gap["value"] == pytest.approx((mean - start) / (1 - start))
    assert gap["low"] < gap["value"] < gap["high"]
    wins = told["tasks"]["base"]["wins"]
    assert wins["better"]["dead"]["seeds_ahead"] == 10
    assert wins["better"]["plain"]["share"]["low"] > 0.5
    assert wins["better"]["plain"]["share"]["value"] + wins["plain"]["better"]["share"]["value"] == pytest.approx(1.0)
    assert wins["dead"]["untrained"] == {"share": None, "seeds_ahead": 5.0, "seeds": 10}
    # The area ends where the run that spent least ended: at 1000 tokens, with 0.2 -> 0.4 before it.
    assert told["tasks"]["base"]["common_teacher_tokens"] == 1000.0


def test_few_seeds_are_an_interval_and_no_test():
    asked, found = planned(9)
    told = results(asked, found, simulated(found, SKILL))
    assert [(one["tested"], one["p"], one["p_holm"]) for one in told["contrasts"]] == [(False, None, None)] * 3
    assert told["contrasts"][0]["estimate"]["low"] > 0
    assert "not tested" in as_markdown(told | {"machine": {}})


def test_main_effects_and_interaction_of_a_factorial_plan():
    effect = [{"name": "credit", "effect": {"credit": ["gae", "immediate"]}}]
    asked, found = planned(10, arms=FACTORIAL, contrasts=effect)
    skill = {arm["name"]: 0.0 for arm in FACTORIAL} | {"gae-r": 2.0}
    told = results(asked, found, simulated(found, skill))
    effects = {tuple(one["effect"]): one for one in told["effects"]}
    assert len(told["effects"]) == 1 + 2 + 2
    (interaction,) = [
        one for one in told["effects"] if one["effect"] == {"credit": ("gae", "immediate"), "route": ("r", "plain")}
    ]
    assert interaction["estimate"]["low"] > 0.2
    main = effects[("credit",)]["estimate"]
    assert main == told["contrasts"][0]["estimate"]
    assert main["value"] == pytest.approx(interaction["estimate"]["value"] / 3, abs=0.06)


def test_a_failed_run_counts_with_the_student_it_began_with():
    asked, found = planned(3)
    records = simulated(found, SKILL)
    for place, record in enumerate(records):
        if record.arm == "better" and record.seed > 0:
            gone = None if record.seed == 1 else record.outcomes  # the second was lost after its last evaluation
            records[place] = record.model_copy(
                update={"status": "failed", "error": "out of <memory>", "report": None, "outcomes": gone}
            )
    told = results(asked, found, records)
    arm = told["tasks"]["base"]["arms"]["better"]
    assert (arm["runs"], arm["failed"], arm["seeds"]) == (3, 2, [0, 1, 2])
    first = next(r for r in records if (r.arm, r.seed) == ("better", 0))
    start = [sum(r.outcomes.before) for r in records if r.arm == "plain" and r.seed > 0]
    assert arm["accuracy"]["value"] == pytest.approx((sum(first.outcomes.after) + sum(start)) / (3 * PROBLEMS))
    assert [one["why"] for one in told["runs"]["failed"]] == ["out of <memory>"] * 2
    page = as_page(told | {"machine": {}})
    assert "out of &lt;memory&gt;" in page


def test_what_is_missing_is_a_blank():
    asked, found = planned(2)
    told = results(asked, found, [record for record in simulated(found, SKILL) if record.arm == "plain"])
    assert told["runs"]["missing"] == 6
    assert told["contrasts"][0]["estimate"] is None
    assert set(told["checklist"]["better"].values()) == {None}
    text = as_markdown(told | {"machine": {}})
    assert "| better - plain | – | – | 0 | not tested | – |" in text


def test_the_report_is_whole_and_loads_nothing():
    asked, found = planned(3)
    records = simulated(found, SKILL)
    told = results(asked, found, records) | {"machine": {"cores": 2}}
    json.dumps(told, allow_nan=False)
    page = as_page(told)
    assert "&lt;b&gt;demo&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    text = as_markdown(told)
    for heading in ("What was run", "Accuracy: base", "Win rates: base", "Cost: base", "Contrasts", "Checklist: dead"):
        assert heading in text
        assert heading in page
    rows = list(csv.DictReader(io.StringIO(as_csv(records))))
    assert len(rows) == 12
    assert rows[0]["gap_recovered"] == ""
    assert float(rows[0]["after"]) == sum(records[0].outcomes.after) / PROBLEMS


def test_different_problems_are_not_paired():
    asked, found = planned(2)
    records = simulated(found, SKILL)
    other = records[0].outcomes.model_copy(update={"problems": list(range(1, PROBLEMS + 1))})
    records[0] = records[0].model_copy(update={"outcomes": other})
    with pytest.raises(UserError, match="different problems"):
        results(asked, found, records)


def test_a_curve_is_the_evaluated_steps():
    series = {"accuracy": [0.1, None, 0.3], "teacher_tokens": [None, 10.0, 20.0], "loss": [None, 1.0, 2.0]}
    assert curve([0, 1, 2], series) == {
        "step": [0.0, 2.0],
        "accuracy": [0.1, 0.3],
        "student_tokens": [0.0, None],
        "teacher_tokens": [0.0, 20.0],
        "flops": [0.0, None],
        "wall_s": [0.0, None],
    }
    longer = curve([0, 1, 2], {**series, "ood_accuracy": [0.0, None, 0.2]})
    assert longer["ood_accuracy"] == [0.0, 0.2]


def test_accuracy_on_longer_problems_is_that_of_the_end():
    asked, found = planned(2)
    records = simulated(found, SKILL)
    for record in records:
        if record.arm == "better":
            record.curve["ood_accuracy"] = [0.0, 0.1, 0.25 + 0.5 * record.seed]
    (task,) = results(asked, found, records)["tasks"].values()
    assert task["arms"]["better"]["out_of_distribution"]["mean"] == 0.5
    assert task["arms"]["plain"]["out_of_distribution"] is None
