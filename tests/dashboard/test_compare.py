"""The compare page, and the pure functions behind it."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from api.schemas import Comparison, Interval, SharedProblem, Spread
from dashboard.shaping import compared, head_to_head, pairs
from dashboard.shaping.colors import luminance
from dashboard.shaping.text import percent
from tests.dashboard import fake_compare
from tests.dashboard.fake_api import DONE, FAILED, QUEUED, ROUTED, RUNNING, FakeApi, World, metrics
from tests.dashboard.test_pages import markdown_of, texts


def comparison(*ids: str, axis: str = "step") -> Comparison:
    world = World()
    series = [metrics(world.steps[one], None) for one in ids]
    return Comparison.model_validate(fake_compare.comparison([world.jobs[one] for one in ids], series, axis))


ACCURACY, LOSS = compared.CURVES[0], compared.CURVES[2]


# --- shaping ------------------------------------------------------------------------------------------------------


def test_arms_differ_in_hue_and_seeds_in_shade_and_dash() -> None:
    found = comparison(RUNNING, DONE, QUEUED)
    for theme in ("light", "dark"):
        looks = compared.looks(found, theme)
        first, other, again = looks[RUNNING], looks[DONE], looks[QUEUED]
        assert len({first.color, other.color, again.color}) == 3
        assert (first.symbol == again.symbol, first.symbol == other.symbol) == (True, False)
        assert first.dash != again.dash
        assert (first.label, other.label) == ("A · demo-live", "B · demo-forward-kl")
    # A paler shade is nearer to the page, whichever that is.
    assert luminance(compared.looks(found, "light")[QUEUED].color) > luminance(
        compared.looks(found, "light")[RUNNING].color
    )
    assert luminance(compared.looks(found, "dark")[QUEUED].color) < luminance(
        compared.looks(found, "dark")[RUNNING].color
    )


def test_runs_of_one_name_are_told_apart() -> None:
    found = comparison(RUNNING, DONE)
    found.runs[1].name = found.runs[0].name
    labels = [look.label for look in compared.looks(found, "light").values()]
    assert labels == ["A · demo-live · unning", "B · demo-live · _0done"]


def test_eight_arms_have_eight_colours() -> None:
    for theme in ("light", "dark"):
        assert len(set(compared._HUES[theme])) == 8


def test_all_charts_share_the_axis_and_show_the_teacher_once() -> None:
    found = comparison(RUNNING, DONE, QUEUED, axis="student_tokens")
    drawn = compared.looks(found, "light")
    options = [compared.option(curve, found, drawn) for curve in compared.CURVES]
    assert {option["xAxis"]["max"] for option in options} == {60 * 1020}
    accuracy = options[0]["series"]
    assert accuracy[0]["data"][:2] == [
        [0, pytest.approx(24.0)],
        [5100, pytest.approx(100 * found.runs[0].series["accuracy"][5])],
    ]
    assert [mark["yAxis"] for mark in accuracy[0]["markLine"]["data"]] == [98.0]
    assert accuracy[2]["data"] == []
    assert "markLine" not in options[2]["series"][0]
    assert compared.takeaway(ACCURACY, found, drawn).startswith("Accuracy (% of held-out problems): A · demo-live at 5")


def test_a_run_without_the_axis_has_no_points() -> None:
    found = comparison(DONE, RUNNING)
    found.runs[0].x = [None] * len(found.runs[0].steps)
    assert compared.points(found.runs[0], "accuracy", share=True) == []
    assert compared.option(LOSS, found, compared.looks(found, "light"))["series"][0]["data"] == []


def test_the_budget_in_words() -> None:
    found = comparison(RUNNING, QUEUED, DONE, axis="student_tokens")
    sentence = compared.budget_sentence(found).replace("\\", "")
    assert "**10.2 k student tokens**" in sentence
    assert "interpolated linearly" in sentence
    assert sentence.endswith("Not measured on this axis: sweep-03.")
    assert compared.budget_sentence(comparison(QUEUED, FAILED)).startswith("No run has an evaluation")
    assert [compared.amount(*pair) for pair in (("wall_s", 90.0), ("step", 1250.0), ("flops", 2e12))] == [
        *("1 min 30 s of training", "1,250 steps", "2 T FLOPs")
    ]


def test_spread_is_mean_range_and_deviation() -> None:
    several = Spread(n=2, mean=0.65, min=0.6, max=0.7, sd=0.0707)
    assert head_to_head.spread_text(several, percent) == "65.0 % (60.0 % to 70.0 %, sd 7.1 %)"
    assert head_to_head.spread_text(Spread(n=1, mean=0.65, min=0.65, max=0.65, sd=None), percent) == "65.0 %"
    assert head_to_head.spread_text(None, percent) == "–"


def test_intervals_read_as_shares_and_differences_as_points() -> None:
    sure, one_seed = Interval(value=0.62, low=0.513, high=0.727), Interval(value=-0.05, low=None, high=None)
    assert head_to_head.interval_text(sure) == "62.0 % (51.3 to 72.7)"
    assert head_to_head.interval_text(sure, bare=True) == "51.3 to 72.7 %"
    assert head_to_head.interval_text(sure, points=True) == "+62.0 points (+51.3 to +72.7)"
    assert head_to_head.interval_text(one_seed, points=True) == "-5.0 points"
    assert head_to_head.interval_text(one_seed, bare=True) == "–"
    assert head_to_head.interval_text(None) == "–"


def test_arms_without_a_common_seed_are_told_what_to_do(app, fake_api: FakeApi) -> None:
    assert "are compared problem by problem" in texts(app("compare", jobs=f"{RUNNING},{QUEUED}"))


def test_tables_have_a_row_per_arm_and_a_legend_per_run() -> None:
    found = comparison(RUNNING, DONE, QUEUED)
    drawn = compared.looks(found, "light")
    outcomes, prices = head_to_head.outcomes(found, drawn), head_to_head.prices(found, drawn)
    assert list(outcomes["arm"]) == ["A · tml-opd", "B · forward-kl"]
    assert list(outcomes["runs"]) == ["2, 2 unfinished", "1"]
    assert list(prices["student tokens"]) == ["12.2 k", "61.2 k"]
    runs = head_to_head.runs(found, drawn)
    assert list(runs["accuracy"]) == ["55.5 %", "95.4 %", "–"]
    assert list(runs[""]) == ["━━━━", "━━━━", "╍╍╍╍"]  # the first seed of each arm, and the second of one
    styles = head_to_head.painted(runs, [drawn[run.id].color for run in found.runs])._compute().ctx
    assert [styles[row, 0] for row in range(3)] == [[("color", drawn[run.id].color)] for run in found.runs]
    table = head_to_head.differences(found)
    assert list(table["A · tml-opd"]) == ["tml-opd", "–"]


def test_the_chosen_pair_is_the_urls_else_the_nearest() -> None:
    offered = [SharedProblem.model_validate(one) for one in fake_compare.shared_problems(4, 9, [12, 60])]
    assert pairs.chosen(offered, "9.2.9.2") == offered[2]
    assert pairs.chosen(offered, "nonsense") == offered[0]
    assert pairs.chosen([], "9.2.9.2") is None
    assert pairs.label(offered[1]) == "problem 154 · left step 9 #1 ✗ · right step 9 #1 ✗"
    assert pairs.reached([1, 2, 3], [2, 3, 4]) == [2, 3]
    assert pairs.reached([1, 3], [2, 4]) == [1, 2, 3, 4]


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_page_asks_for_two_runs(app) -> None:
    test = app("compare")
    assert not test.exception
    assert "Choose at least two runs" in texts(test)
    assert not test.get("echarts_chart")


def test_a_link_opens_a_comparison(app) -> None:
    test = app("compare", jobs=f"{DONE},{ROUTED}", x="flops")
    assert not test.exception
    (link,) = test.get("page_link")
    assert parse_qs(link.proto.query_string) == {"job": [DONE], "against": [ROUTED]}
    assert test.multiselect(key="compare_jobs").value == [DONE, ROUTED]
    assert test.get("segmented_control")[0].value == "flops"
    assert len(test.get("echarts_chart")) == 5
    assert "None of these runs recorded this" in texts(test)  # the share of cut-off rollouts
    assert "Equal budget: **18\\.6 T FLOPs**" in markdown_of(test)
    assert "not significance" in texts(test)
    tables = [frame.value for frame in test.dataframe]
    assert list(tables[1]["arm"]) == ["A · forward-kl", "B · gae-cr-opd"]
    assert list(tables[3]["wins"]) == ["62.5 % (50.0 to 75.0)"]
    assert "method.credit.critic.form" in list(tables[4]["field"])


def test_the_choice_of_runs_is_written_to_the_link(app) -> None:
    test = app("compare", jobs=f"{DONE},{ROUTED}")
    test.multiselect(key="compare_jobs").set_value([RUNNING, DONE, QUEUED]).run()
    assert test.query_params["jobs"] == f"{RUNNING},{DONE},{QUEUED}"
    assert not test.exception
    assert "sweep\\-03 recorded no tokens" not in texts(test)  # the two that are looked into are the first ones


def test_one_arm_says_that_nothing_differs(app) -> None:
    assert "Nothing but seeds and names" in texts(app("compare", jobs=f"{RUNNING},{QUEUED}"))


def test_the_same_problem_in_both_runs(app) -> None:
    test = app("compare", jobs=f"{DONE},{ROUTED}", near=20, pair="20.2.20.2", color="kl", lt=3, rt=5)
    assert not test.exception
    shown = texts(test).replace("\\", "")
    assert "Left: demo-forward-kl · step 20 · sequence 2 · right · 27 tokens" in shown
    assert "Right: demo-gae-cr · step 20 · sequence 2" in shown
    assert {"**Left, token 3**", "**Right, token 5**"} <= {one.value for one in test.markdown}
    assert test.select_slider(key="compare_near").value == 20
    assert "onerror" not in markdown_of(test)
    assert "apples" not in markdown_of(test)
    test.selectbox(key="compare_pair").select("20.0.20.0").run()
    assert test.query_params["pair"] == "20.0.20.0"
    assert "lt" not in test.query_params


def test_without_a_shared_problem_both_sides_say_so(app, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_compare, "shared_problems", lambda *_: [])
    test = app("compare", jobs=f"{DONE},{ROUTED}", near=20)
    assert not test.exception
    assert "these are different problems" in texts(test)


def test_a_run_without_tokens_is_named(app) -> None:
    assert "sweep\\-03 recorded no tokens" in texts(app("compare", jobs=f"{DONE},{QUEUED}"))


def test_the_comparison_survives_a_visit_to_another_page(app) -> None:
    test = app("compare", jobs=f"{DONE},{ROUTED}", x="flops")
    test.query_params.clear()
    test.switch_page("app_pages/overview.py").run()
    assert "jobs" not in test.query_params
    test.query_params.clear()
    test.switch_page("app_pages/compare.py").run()
    assert (test.query_params["jobs"], test.query_params["x"]) == (f"{DONE},{ROUTED}", "flops")


@pytest.mark.parametrize("jobs", [f"{DONE},job_0nosuch", f"{DONE},../../etc", f"{DONE},{DONE},"])
def test_a_broken_link_is_one_sentence(app, jobs: str) -> None:
    test = app("compare", jobs=jobs)
    assert not test.exception
    assert "**Not found.**" in texts(test) or "Choose at least two runs" in texts(test)
