"""Where probability moved."""

from __future__ import annotations

import pytest

from api.schemas import Heatmap
from dashboard.shaping import routing as shape
from dashboard.shaping.colors import diverging
from tests.dashboard.fake_api import heatmap


def small(**changes: object) -> Heatmap:
    base = {
        "from_step": 1,
        "to_step": 2,
        "states": 3,
        "rows": [{"id": 1, "text": " a", "count": 2}, {"id": 2, "text": "b", "count": 1}],
        "columns": [{"id": 1, "text": " a"}, {"id": 3, "text": "c"}],
        "predicted": [[-0.2, 0.1], [0.0, 0.0]],
        "realised": [[-0.1, 0.3], [0.01, -0.02]],
    }
    return Heatmap.model_validate(base | changes)


def test_both_heatmaps_share_a_symmetric_scale() -> None:
    used = shape.heatmap_scale(small())
    options = [shape.option(small(), which, used, theme="light") for which in ("predicted", "realised")]
    assert {(o["visualMap"]["min"], o["visualMap"]["max"]) for o in options} == {(-0.3, 0.3)}
    assert options[0]["visualMap"]["inRange"]["color"] == diverging("light")


def test_cells_are_row_by_row() -> None:
    cells = shape.option(small(), "realised", shape.heatmap_scale(small()), theme="dark")["dataset"]["source"]
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
    assert shape.moves(small(rows=[], predicted=[], realised=[])).empty


def test_agreement_is_the_cosine() -> None:
    assert shape.agreement(small(realised=[[-0.4, 0.2], [0.0, 0.0]])) == pytest.approx(1.0)
    assert shape.agreement(small(realised=[[0.0, 0.0], [0.0, 0.0]])) is None
    assert -1 <= shape.agreement(Heatmap.model_validate(heatmap(1, 9))) <= 1
