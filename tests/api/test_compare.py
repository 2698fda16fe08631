"""Runs side by side: arms, the equal budget by hand, what differs, shared problems, and what is refused."""

from dataclasses import replace

import pytest

from api import comparison
from opd_core.recipes import resolve
from opd_core.runs import records
from opd_core.spec import JobSpec
from tests.api.conftest import SPEC
from tests.api.test_jobs import problem_of
from tests.runs.test_records import row


@pytest.fixture
def train(http, store):
    """A factory of runs: ``train(spec changes, accuracy by step, tokens per step)`` -> job id."""

    def make(changes, accuracy, tokens, *, ends="succeeded", wall=True):
        job_id = http.post("/v1/jobs", json={**SPEC, **changes}).json()["id"]
        if not accuracy:
            return job_id
        store.claim(job_id, "w1", 30)
        last = max(accuracy)
        for step in range(last + 1):
            values = {"accuracy": accuracy[step]} if step in accuracy else {}
            if step:
                spent = {"student_tokens": tokens * step, "teacher_tokens": 2 * tokens * step, "flops": 1e9 * step}
                values |= spent | {"loss": 1 / step} | ({"wall_s": 0.5 * step} if wall else {})
            store.add_metrics(job_id, 1, step, values)
        store.set_progress(job_id, 1, {"step": last, "total": 8, "accuracy": accuracy[last]})
        known = {"before": accuracy[0], "teacher": 1.0}
        if ends == "succeeded":
            known |= {"after": accuracy[last], "gap_recovered": 0.5}
        store.set_accuracy(job_id, 1, known)
        if ends is not None:
            store.finish(job_id, 1, ends)
        return job_id

    return make


def compared(http, *jobs, **query):
    parameters = "".join(f"&{key}={value}" for key, value in query.items())
    answer = http.get(f"/v1/compare?jobs={','.join(jobs)}{parameters}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_seeds_of_one_spec_are_one_arm(http, train):
    """Names, seeds and labels make no other arm; anything else does."""
    first = train({"name": "a", "seed": 1}, {0: 0.2, 4: 0.6}, 100)
    other = train({"name": "b", "seed": 1, "recipe": "tml-opd"}, {0: 0.2, 4: 0.4}, 100)
    again = train({"name": "c", "seed": 2, "metadata": {"who": "me"}}, {0: 0.3, 4: 0.8}, 110)
    found = compared(http, first, other, again)
    a, b = found["arms"]
    assert (a["key"], a["jobs"], a["seeds"], a["n"], a["recipe"]) == ("A", [first, again], [1, 2], 2, "forward-kl")
    assert (b["key"], b["jobs"], b["unfinished"]) == ("B", [other], 0)
    assert [run["arm"] for run in found["runs"]] == ["A", "B", "A"]
    # 0.6 and 0.8: mean 0.7, deviation sqrt(2 * 0.1 ** 2) = 0.1414...
    after = a["accuracy_after"]
    assert after == {"n": 2, "mean": 0.7, "min": 0.6, "max": 0.8, "sd": pytest.approx(0.02**0.5)}
    assert b["accuracy_after"]["sd"] is None
    # (0.6 - 0.2) / 0.8 = 0.5 and (0.8 - 0.3) / 0.7
    assert a["gap_recovered"]["min"] == pytest.approx(0.5)
    assert a["gap_recovered"]["max"] == pytest.approx(5 / 7)
    assert a["student_tokens"] | {"sd": 0} == {"n": 2, "mean": 420.0, "min": 400.0, "max": 440.0, "sd": 0}
    assert a["wall_s"]["mean"] == 2.0
    paths = {one["path"]: one["values"] for one in found["differences"]}
    assert paths["recipe"] == {"A": "forward-kl", "B": "tml-opd"}
    assert paths["method.objective.route"] == {"A": "direct", "B": "log_ratio"}
    assert paths["method.support.estimator"] == {"B": "k1"}  # the full vocabulary needs no estimator
    assert not {"name", "seed"} & set(paths)
    assert not any(path.startswith("metadata") for path in paths)


def test_accuracy_at_the_largest_budget_that_all_reach(http, train):
    """By hand: 400 tokens are the least that a run was evaluated at; the other's line there is 0.2 + 0.4 * 400/600."""
    slow = train({}, {0: 0.1, 2: 0.3, 4: 0.5}, 100)
    fast = train({"recipe": "tml-opd"}, {0: 0.2, 2: 0.6, 4: 0.8}, 300)
    found = compared(http, slow, fast, x="student_tokens")
    assert found["budget"] == 400
    assert found["without_budget"] == []
    assert [run["reach"] for run in found["runs"]] == [400, 1200]
    assert [arm["accuracy_at_budget"]["mean"] for arm in found["arms"]] == [0.5, pytest.approx(0.2 + 0.4 * 400 / 600)]
    by_step = compared(http, slow, fast)
    assert (by_step["budget"], by_step["arms"][1]["accuracy_at_budget"]["mean"]) == (4, 0.8)
    assert compared(http, slow, fast, x="wall_s")["budget"] == 2.0


def test_steps_beyond_the_last_evaluation_are_no_budget(http, train, store):
    short = train({}, {0: 0.1, 2: 0.3}, 100, ends=None)
    store.add_metrics(short, 1, 3, {"student_tokens": 300, "loss": 0.5})
    long = train({"recipe": "tml-opd"}, {0: 0.2, 4: 0.6}, 100)
    found = compared(http, short, long, x="student_tokens")
    assert found["budget"] == 200
    assert found["runs"][0]["x"] == [0, 100, 200, 300]
    assert found["arms"][0]["student_tokens"]["mean"] == 300
    assert found["arms"][0]["unfinished"] == 1
    assert found["arms"][0]["accuracy_after"]["mean"] == 0.3  # the newest one


def test_a_run_from_before_the_clock_has_no_wall_time(http, train):
    old = train({}, {0: 0.1, 4: 0.5}, 100, wall=False)
    new = train({"seed": 2}, {0: 0.2, 4: 0.6}, 100)
    found = compared(http, old, new, x="wall_s", keys="loss")
    assert found["runs"][0]["x"] == [None] * 5
    assert found["runs"][1]["x"] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert (found["budget"], found["without_budget"]) == (2.0, [old])
    (arm,) = found["arms"]
    assert (arm["n"], arm["wall_s"]["n"], arm["accuracy_at_budget"]["n"]) == (2, 1, 1)
    assert found["runs"][1]["series"] == {"loss": [None, 1.0, 0.5, pytest.approx(1 / 3), 0.25]}


def test_runs_that_have_not_begun_are_shown_with_nothing(http, train):
    waiting, done = train({}, {}, 1), train({"seed": 3}, {0: 0.2, 4: 0.6}, 100)
    found = compared(http, waiting, done)
    assert (found["runs"][0]["status"], found["runs"][0]["steps"]) == ("queued", [])
    assert set(found["runs"][0]["series"]) == set(comparison.KEYS)
    assert (found["budget"], found["without_budget"]) == (4, [waiting])
    nothing = compared(http, waiting, train({"seed": 4}, {}, 1))
    assert nothing["budget"] is None
    assert nothing["arms"][0]["accuracy_after"] is None


def test_a_spec_from_before_a_field_was_added_is_no_other_arm(store):
    spec = resolve(JobSpec.model_validate(SPEC))
    new = store.create_job(spec, spec)
    older = {key: value for key, value in new.resolved_spec.items() if value is not None}
    assert older != new.resolved_spec
    found = comparison.compare([(new, []), (replace(new, id="job_old", resolved_spec=older), [])], "step")
    assert [arm.n for arm in found.arms] == [2]
    assert found.differences == []


def test_an_empty_field_and_a_null_are_told_apart_from_a_value():
    flat = {
        key: comparison._flat(spec) for key, spec in {"A": {"a": {"b": [], "c": None}}, "B": {"a": {"c": 0}}}.items()
    }
    assert flat == {"A": {"a.b": []}, "B": {"a.c": 0}}
    assert [(one.path, one.values) for one in comparison.differences(flat)] == [("a.b", {"A": []}), ("a.c", {"B": 0})]


def test_series_are_thinned_but_keep_the_evaluations(http, train):
    one, two = (train({"seed": seed}, {0: 0.1, 50: 0.5, 99: 0.6}, 10) for seed in (0, 1))
    run = compared(http, one, two, max_points=10, keys="accuracy")["runs"][0]
    assert run["steps"] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99]
    assert run["series"]["accuracy"][5] == 0.5


@pytest.mark.parametrize(
    ("points", "x", "y"),
    [
        ([(0.0, 1.0), (4.0, 3.0)], 1.0, 1.5),
        ([(0.0, 1.0), (4.0, 3.0)], 4.0, 3.0),
        ([(0.0, 1.0), (4.0, 3.0)], 4.5, None),
        ([(1.0, 1.0), (4.0, 3.0)], 0.5, None),
        ([(2.0, 1.0)], 2.0, 1.0),
        ([], 0.0, None),
    ],
)
def test_between_evaluations_accuracy_lies_on_a_line_and_nowhere_else(points, x, y):
    assert comparison.at(points, x) == y


@pytest.mark.parametrize("jobs", ["", "job_1", ",".join(f"job_{i}" for i in range(9)), "job_1,job_1", "job_1,,"])
def test_two_to_eight_different_runs(http, jobs):
    found = problem_of(http.get(f"/v1/compare?jobs={jobs}"), 422)
    assert found["param"] == "jobs"
    assert "2 to 8 different job ids" in found["detail"]


@pytest.mark.parametrize("other", ["job_00000000000000000000000000", "../etc/passwd"])
def test_an_unknown_run_is_named(http, job_id, other):
    found = problem_of(http.get("/v1/compare", params={"jobs": f"{job_id},{other}"}), 404)
    assert (found["param"], repr(other) in found["detail"]) == ("jobs", True)


def test_an_unknown_axis_is_refused_with_those_there_are(http, train):
    jobs = ",".join(train({}, {}, 1) for _ in range(2))
    found = problem_of(http.get(f"/v1/compare?jobs={jobs}&x=hours"), 422)
    assert found["param"] == "x"
    assert "student_tokens" in found["detail"]


def test_shared_problems_come_nearest_first(http, train, services):
    left, right = train({"seed": 1}, {0: 0.1, 2: 0.2}, 10), train({"seed": 2}, {0: 0.1, 2: 0.2}, 10)

    def record(job_id, *places):
        rows = [row(step, n) | {"problem": problem, "prompt": prompt} for step, n, problem, prompt in places]
        records.write_part(services.files(job_id), rows, places[0][0], places[-1][0], 1)

    record(left, (1, 0, 7, "seven"), (5, 0, 7, "seven"), (5, 1, 8, "eight"), (6, 0, 9, "nine"), (90, 0, 1, "far"))
    record(right, (3, 0, 9, "nine"), (5, 0, 8, "another eight"), (6, 2, 7, "seven"), (90, 0, 1, "far"))
    found = http.get(f"/v1/compare/problems?jobs={left},{right}&step=5").json()["data"]
    assert [(one["problem"], one["distance"]) for one in found] == [(7, 1), (9, 3)]
    assert found[0]["left"] == {"step": 5, "n": 0, "correct": None}
    assert found[0]["right"] == {"step": 6, "n": 2, "correct": None}
    assert http.get(f"/v1/compare/problems?jobs={right},{left}&step=5&limit=1").json()["has_more"]
    three = http.get(f"/v1/compare/problems?jobs={left},{right},{train({}, {}, 1)}&step=5")
    assert problem_of(three, 422)["param"] == "jobs"


def test_the_typed_client_compares(client, http, train):
    jobs = [train({"seed": seed}, {0: 0.25, 4: 0.5}, 100) for seed in (0, 1)]
    found = client.compare(jobs, x="flops", max_points=3)
    assert found.arms[0].accuracy_at_budget.mean == 0.5
    assert found.runs[0].x[-1] == 4e9
    assert client.shared_problems(*jobs, step=3).data == []


# --- problem by problem -----------------------------------------------------------------------------------------------


@pytest.fixture
def examine(http):
    """Write what a run solved at its end, as its trainer would."""

    def write(job_id, correct, problems=None, *, after=True):
        one = {"correct": correct, "length": [3] * len(correct), "truncated": [False] * len(correct)}
        known = {"problems": problems or list(range(len(correct))), "teacher": None, "before": one}
        known["after"] = one if after else None
        http.app.state.services.files(job_id).write_json("evaluation.json", known)

    return write


def test_arms_meet_problem_by_problem_under_the_seeds_that_both_have(http, train, examine):
    runs = {
        (recipe, seed): train({"recipe": recipe, "seed": seed}, {0: 0.2, 4: 0.5}, 100)
        for recipe, seed in (("gkd", 1), ("gkd", 2), ("tml-opd", 1), ("tml-opd", 2), ("tml-opd", 3))
    }
    examine(runs["gkd", 1], [True, True, True, False])
    examine(runs["gkd", 2], [True, False, True, False])
    examine(runs["tml-opd", 1], [True, False, False, False])
    examine(runs["tml-opd", 2], [False, True, True, False])
    examine(runs["tml-opd", 3], [False, False, False, False])  # nobody to meet
    found = compared(http, *runs.values())
    (duel,) = found["duels"]
    assert (duel["left"], duel["right"], duel["seeds"], duel["problems"]) == ("A", "B", [1, 2], 4)
    # Seed 1: two problems ahead. Seed 2: one ahead, one behind. So 2 of 8, and 3 of the 4 that only one solves.
    assert duel["difference"]["value"] == pytest.approx(0.25)
    assert duel["wins"]["value"] == pytest.approx(0.75)
    assert -1.0 <= duel["difference"]["low"] < 0.25 < duel["difference"]["high"] <= 1.0
    assert 0.0 <= duel["wins"]["low"] < 0.75 < duel["wins"]["high"] <= 1.0
    a, b = found["arms"]
    assert a["accuracy_interval"]["value"] == pytest.approx(5 / 8)
    assert b["accuracy_interval"]["value"] == pytest.approx(3 / 12)


def test_the_order_of_a_request_turns_the_duel_round(http, train, examine):
    one, other = (train({"recipe": recipe}, {0: 0.2, 4: 0.5}, 100) for recipe in ("gkd", "tml-opd"))
    examine(one, [True, True, False])
    examine(other, [False, True, False])
    (there,), (back,) = compared(http, one, other)["duels"], compared(http, other, one)["duels"]
    assert there["difference"] == {"value": pytest.approx(1 / 3), "low": None, "high": None}  # one seed is no interval
    assert back["difference"]["value"] == pytest.approx(-1 / 3)
    assert (there["wins"]["value"], back["wins"]["value"]) == (1.0, 0.0)


def test_other_problems_seeds_or_ends_do_not_meet(http, train, examine):
    here, elsewhere = (train({"recipe": recipe}, {0: 0.2, 4: 0.5}, 100) for recipe in ("gkd", "tml-opd"))
    examine(here, [True, True], problems=[1, 2])
    examine(elsewhere, [True, False], problems=[1, 3])
    assert compared(http, here, elsewhere)["duels"] == []
    other_seed = train({"recipe": "vopd", "seed": 5}, {0: 0.2, 4: 0.5}, 100)
    examine(other_seed, [True, True], problems=[1, 2])
    goes_on = train({"recipe": "aopd"}, {0: 0.2, 4: 0.5}, 100, ends=None)
    examine(goes_on, [True, True], problems=[1, 2])
    only_before = train({"recipe": "skew-forward-kl"}, {0: 0.2, 4: 0.5}, 100)
    examine(only_before, [True, True], problems=[1, 2], after=False)
    found = compared(http, here, other_seed, goes_on, only_before)
    assert found["duels"] == []
    assert [arm["accuracy_interval"] for arm in found["arms"][2:]] == [None, None]


def test_equals_win_nothing_of_each_other(http, train, examine):
    one, other = (train({"recipe": recipe}, {0: 0.2, 4: 0.5}, 100) for recipe in ("gkd", "tml-opd"))
    for job_id in (one, other):
        examine(job_id, [True, False])
    (duel,) = compared(http, one, other)["duels"]
    assert (duel["difference"]["value"], duel["wins"]) == (0.0, None)


def test_the_mean_on_the_way_to_the_budget_is_the_area_below_the_curve(http, train):
    """By hand, up to step 4: (0.2 + 0.4) / 2 over half of the way, (0.4 + 0.6) / 2 over the other."""
    longer = train({}, {0: 0.2, 2: 0.4, 4: 0.6, 8: 0.9}, 100)
    other = train({"recipe": "gkd"}, {0: 0.0, 4: 0.4}, 100)
    a, b = compared(http, longer, other)["arms"]
    assert a["accuracy_to_budget"]["mean"] == pytest.approx(0.4)
    assert b["accuracy_to_budget"]["mean"] == pytest.approx(0.2)
