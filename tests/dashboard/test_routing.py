"""Where probability moved."""

from __future__ import annotations

import pytest

from api.schemas import Heatmap, Job, Metrics, Occurrences, RouteBalance
from dashboard.shaping import routing as shape
from dashboard.shaping.colors import diverging, sequential
from tests.dashboard import fake_profiles
from tests.dashboard.fake_api import DONE, World, heatmap


def small(**changes: object) -> Heatmap:
    base = {
        "from_step": 1,
        "to_step": 2,
        "states": 3,
        "rows": [{"id": 1, "text": " a", "count": 2}, {"id": 2, "text": "b", "count": 1}],
        "columns": [{"id": 1, "text": " a"}, {"id": 3, "text": "c"}],
        "predicted": [[-0.2, 0.1], [0.0, 0.0]],
        "realised": [[-0.1, 0.3], [0.01, -0.02]],
        "plain": [[-0.2, 0.05], [0.0, 0.0]],
    }
    return Heatmap.model_validate(base | changes)


def test_both_heatmaps_share_a_symmetric_scale() -> None:
    used = shape.change_scale(small())
    options = [shape.option(small(), which, used, theme="light") for which in ("predicted", "realised")]
    assert {(o["visualMap"]["min"], o["visualMap"]["max"]) for o in options} == {(-0.3, 0.3)}
    assert options[0]["visualMap"]["inRange"]["color"] == diverging("light")


def test_what_was_sent_has_a_scale_of_its_own_that_starts_at_nothing() -> None:
    sent = small(routed=[[0.0, 2.0], [1.0, 0.0]])
    legend = shape.option(sent, "routed", shape.sent_scale(sent), theme="light")["visualMap"]
    assert (legend["min"], legend["max"], legend["text"]) == (0, 2.0, ["2", "0"])
    assert legend["inRange"]["color"] == sequential("light")
    assert shape.change_scale(sent) == shape.change_scale(small())
    away = small(routed=[[0.0, -2.0], [1.0, 0.0]])
    legend = shape.option(away, "routed", shape.sent_scale(away), theme="light")["visualMap"]
    assert (legend["min"], legend["max"]) == (-2.0, 2.0)


def test_cells_are_row_by_row() -> None:
    cells = shape.option(small(), "realised", shape.change_scale(small()), theme="dark")["dataset"]["source"]
    assert cells.values.tolist() == [
        ["·a", "·a", -0.1],
        ["c", "·a", 0.3],
        ["·a", "b", 0.01],
        ["c", "b", -0.02],
    ]


def test_tokens_that_look_the_same_get_their_ids() -> None:
    assert shape.labels([(1, "a"), (2, "a"), (3, "b")]) == ["a #1", "a #2", "b"]


def test_moves_largest_realised_first() -> None:
    moves = shape.moves(small(), limit=2)
    assert moves.values.tolist() == [["·a", 2, "c", 0.1, 0.3], ["·a", 2, "·a", -0.2, -0.1]]
    assert shape.moves(small(rows=[], predicted=[], realised=[], plain=[])).empty


def test_moves_say_what_was_sent_where_the_run_routes() -> None:
    moves = shape.moves(small(routed=[[0.0, 2.0], [1.0, 0.0]]), limit=1)
    assert list(moves.columns) == ["suppressed", "seen", "destination", "sent", "predicted", "realised"]
    assert moves.values.tolist() == [["·a", 2, "c", 2.0, 0.1, 0.3]]


def test_the_balance_in_numbers() -> None:
    found = RouteBalance(suppressed=1234, released=0.5, routed=0.25, empty_rate=0.125)
    assert [figure.value for figure in shape.balance_figures(found)] == ["1,234", "0.500", "0.250", "12.5 %"]


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ({"objective": {"route": "direct"}, "routing": {"kind": "plain"}}, "the direct route"),
        ({"objective": {"route": "log_ratio"}, "routing": {"kind": "plain"}}, "plain softmax decides"),
        ({"objective": {"route": "log_ratio"}}, "plain softmax decides"),
        ({"objective": {"route": "log_ratio"}, "routing": {"kind": "aopd"}}, "In these steps the plan sent nothing"),
    ],
)
def test_why_nothing_is_sent(method: dict[str, object], why: str) -> None:
    job = Job.model_validate(World().jobs[DONE] | {"resolved_spec": {"method": method}})
    assert why in shape.unrouted(job)


def test_agreement_is_the_cosine() -> None:
    assert shape.agreement(small(realised=[[-0.4, 0.2], [0.0, 0.0]])) == pytest.approx(1.0)
    assert shape.agreement(small(realised=[[0.0, 0.0], [0.0, 0.0]])) is None
    assert -1 <= shape.agreement(Heatmap.model_validate(heatmap(1, 9))) <= 1


def test_who_got_what_was_released_is_a_mean_over_the_range() -> None:
    series = {
        "landing_realised_supported": [None, 0.2, 0.4, 0.9],
        "landing_realised_own": [None, 0.6, 0.4, 0.0],
        "landing_plain_supported": [None, 0.1, 0.1, 0.1],
        "landing_plain_own": [None, 0.8, 0.8, 0.8],
    }
    table = shape.landing(Metrics(steps=[0, 1, 2, 3], series=series), 1, 2)
    assert table.values.tolist() == [["by the network", 30.0, 50.0, 20.0], ["by softmax alone", 10.0, 80.0, 10.0]]
    assert shape.landing(Metrics(steps=[1], series={}), 1, 1) is None


def test_one_suppressed_token_alone() -> None:
    one = shape.narrowed(small(routed=[[1.0, 2.0], [3.0, 4.0]]), 2)
    assert ([row.id for row in one.rows], one.realised, one.plain, one.routed) == (
        [2],
        [[0.01, -0.02]],
        [[0.0, 0.0]],
        [[3.0, 4.0]],
    )
    assert one.columns == small().columns


@pytest.mark.parametrize(
    ("which", "cells"), [("interference", [0.1, 0.2, 0.01, -0.02]), ("rerouted", [0.0, 0.05, 0.0, 0.0])]
)
def test_differences_of_two_maps(which: str, cells: list[float]) -> None:
    assert [round(value, 6) for row in shape.matrix_of(small(), which) for value in row] == cells


def test_only_a_run_that_routes_has_a_map_of_what_was_sent() -> None:
    assert shape.offered(small()) == [name for name in shape.MAPS if name != "routed"]
    assert shape.offered(small(routed=[[1.0, 2.0], [3.0, 4.0]])) == list(shape.MAPS)


def test_places_are_links_to_the_token() -> None:
    table = shape.places(Occurrences.model_validate(fake_profiles.suppressed(7)), "job_1")
    assert table["place"][0] == "tokens?job=job_1&step=20&seq=1&token=3"
