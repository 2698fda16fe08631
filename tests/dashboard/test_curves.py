"""Learning curves."""

from __future__ import annotations

import math

from dashboard.shaping import curves

BY_KEY = {curve.key: curve for group in curves.GROUPS.values() for curve in group}


def test_accuracy_has_only_evaluated_steps_in_percent_and_the_teacher_as_ceiling() -> None:
    curve = BY_KEY["accuracy"]
    table = curves.frame(curve, [0, 1, 2], {"accuracy": [0.25, None, 0.75]})
    assert table.to_dict("list") == {"step": [0.0, 2.0], "student": [25.0, 75.0]}
    option = curves.option(curve, table, end=10, ceiling=0.98, start=0.25)
    lines = option["series"][0]["markLine"]["data"]
    assert [(line["yAxis"], line["label"]["formatter"]) for line in lines] == [(98.0, "teacher"), (25.0, "before")]
    assert option["xAxis"]["max"] == 10
    assert (option["yAxis"]["min"], option["yAxis"]["max"]) == (0, 100)


def test_the_axis_of_steps_ends_at_a_round_number_and_with_the_run() -> None:
    assert [curves.horizon(step, 3000) for step in (1, 7, 61, 426, 2100, 2500, 3000)] == [
        1,
        8,
        80,
        500,
        3000,
        3000,
        3000,
    ]
    assert (curves.horizon(0, 60), curves.horizon(None, None), curves.horizon(41, None)) == (60, None, 50)
    assert (curves.horizon(41, 45), curves.horizon(47, 45)) == (45, 47)  # not beyond the run, unless it is beyond


def test_nothing_to_draw_yet() -> None:
    assert curves.frame(BY_KEY["loss"], [0], {"loss": [None]}) is None
    assert curves.frame(BY_KEY["loss"], [], {}) is None


def test_only_lines_with_numbers_are_drawn() -> None:
    table = curves.frame(BY_KEY["length"], [1, 2], {"length_mean": [10.0, 12.0], "eval_length": [None, None]})
    option = curves.option(BY_KEY["length"], table)
    assert [line["name"] for line in option["series"]] == ["rollouts"]
    assert not option["legend"]["show"]


def test_gates_and_parts_have_the_names_of_the_method() -> None:
    series = {
        "gate_ta_opd_share": [0.05, 0.05],
        "gate_ta_opd_weight": [0.05, 0.04],
        "gate_window_share": [None, None],
        "size_route": [0.5, 0.25],
        "size_log_ratio": [1.0, 0.5],
    }
    assert curves.frame(BY_KEY["gate_share"], [1, 2], series).to_dict("list") == {"step": [1, 2], "ta opd": [5, 5]}
    weights = curves.frame(BY_KEY["gate_weight"], [1, 2], series)
    assert list(weights["ta opd"]) == [0.05, 0.04]
    assert not curves.option(BY_KEY["gate_weight"], weights)["yAxis"]["scale"]
    assert list(curves.frame(BY_KEY["size"], [1, 2], series).columns) == ["step", "log ratio", "route"]
    assert curves.frame(BY_KEY["critic"], [1, 2], series) is None


def test_small_shares_are_not_flattened_by_a_whole_axis() -> None:
    table = curves.frame(BY_KEY["importance"], [1, 2], {"importance_truncated": [0.001, 0.002]})
    axis = curves.option(BY_KEY["importance"], table)["yAxis"]
    assert axis["min"] == 0
    assert "max" not in axis


def test_time_is_stacked() -> None:
    series = {"time_rollout_s": [0.1], "time_update_s": [0.2]}
    option = curves.option(BY_KEY["time"], curves.frame(BY_KEY["time"], [1], series))
    assert {line["stack"] for line in option["series"]} == {"all"}


def test_takeaway_names_first_and_last_value() -> None:
    table = curves.frame(BY_KEY["loss"], [1, 2, 3], {"loss": [0.9, math.nan, 0.3]})
    assert curves.takeaway(BY_KEY["loss"], table) == "Loss (nats per token): loss from 0.9 at step 1 to 0.3 at step 3"
