"""Two plans of one sequence, shaped for the What if page."""

from __future__ import annotations

import pytest

from api.schemas import Mark, Question, Replan
from dashboard.shaping import fields, what_if
from tests.dashboard.fake_api import sequence
from tests.dashboard.fake_questions import Desk


@pytest.fixture
def result() -> Replan:
    desk = Desk(lambda step, n: sequence(step, n, whole=True))
    request = {"step": 3, "sequences": [0], "recipe": "cr-opd", "method": {}}
    return Replan.model_validate(desk._replan(request))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("credit: {gamma: 0.5}", {"credit": {"gamma": 0.5}}),
        ('{"optimizer": {"lr": 1e-3}}', {"optimizer": {"lr": 0.001}}),
    ],
)
def test_changes_are_read_from_yaml_and_json(text, expected):
    assert what_if.changes(text) == expected


@pytest.mark.parametrize("text", ["{", "a: [", "- 1", "!!python/object:os.system x"])
def test_other_changes_are_refused(text):
    with pytest.raises(what_if.NotAMapping):
        what_if.changes(text)


def test_the_difference_can_be_read_like_a_sequence(result):
    pair = result.sequences[0]
    difference = what_if.between(pair)
    for before, after, changed in zip(pair.recorded.tokens, pair.replanned.tokens, difference.tokens, strict=True):
        assert changed.text == before.text
        assert changed.coefficient == after.coefficient - before.coefficient
        assert changed.value is None  # only one of the plans has a critic
        assert changed.log_ratio == 0.0
        assert changed.gates["tip"] == 0.5 - before.gates["tip"]
        assert changed.gates["prefix_weight"] == 1.0 - before.gates["prefix_weight"]  # gone: it lets everything through


def test_only_numbers_of_the_plan_are_offered(result):
    offered = what_if.offered(result.sequences[0])
    assert "coefficient" in offered
    assert {"log_ratio", "return_", "kl"}.isdisjoint(offered)


def test_every_row_of_the_heatmap_reaches_its_own_largest_change(result):
    pair = result.sequences[0]
    shown = {key: what_if.of_difference(field) for key, field in what_if.offered(pair).items()}
    option, used = what_if.heatmap(what_if.between(pair), shown, theme="light")
    cells = option["dataset"]["source"]
    assert (used.limit, used.signed) == (1.0, True)
    largest = cells.assign(share=cells["share"].abs()).groupby("field")["share"].max()
    assert largest["change of coefficient"] == 1.0
    assert largest["change of advantage"] == 0.0
    assert len(cells) == len(shown) * len(pair.recorded.tokens)


def test_marks_are_told_together_where_they_share_their_reasons(result):
    ((names, why),) = what_if.approximate(result.marks)
    assert names == "gate tip, coefficient"
    assert "4 of its 32" in why
    assert what_if.exact(result.marks) == ["advantage"]
    marks = {"return": Mark(exact=False, reasons=["x"]), **result.marks}
    assert what_if.mark_of(fields.RETURN, marks).exact is False
    assert what_if.mark_of(fields.one_gate("tip"), marks).exact is False
    assert what_if.mark_of(fields.one_part("return"), marks) is marks["coefficient"]


def test_both_routes_stand_side_by_side(result):
    pair = result.sequences[0]
    before = next(token for token in pair.recorded.tokens if token.route)
    after = before.model_copy(update={"route": before.route[:1]})
    table = what_if.routes(before, after)
    assert list(table["as trained"][1:]) == [entry.weight for entry in before.route[1:]]
    assert list(table["re-planned"]) == [before.route[0].weight, 0.0, 0.0]
    empty = before.model_copy(update={"route": []})
    assert what_if.routes(empty, empty) is None


def test_forces_show_their_difference_and_mark_the_sampled_token(result):
    pair = result.sequences[0]
    table = what_if.forces(pair.forces[0], pair.recorded.tokens[0].id)
    assert table.iloc[0].to_dict() == {
        "token": table.iloc[0]["token"],
        "as trained": -0.5,
        "re-planned": -0.25,
        "change": 0.25,
        "moved": -0.1,
        "would move": -0.05,
        "": "◀ sampled",
    }


def test_waiting_and_failing_are_told_in_words():
    base = {"id": "q", "job_id": "j", "kind": "probe", "phase": "loading models", "request": {}, "finished_at": None}
    question = Question.model_validate({**base, "status": "working", "created_at": 0, "error": None})
    assert what_if.waiting(question, 3.4) == "Working for 3 s: loading models"
    error = {"code": "worker_lost", "message": "the worker was lost", "category": "system"}
    failed = Question.model_validate({**base, "status": "failed", "created_at": 0, "error": error})
    assert what_if.why_not(failed).startswith("the worker was lost. Ask again")
