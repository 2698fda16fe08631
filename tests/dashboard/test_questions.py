"""The What if and Probe pages over the fake service: asking, waiting, both plans, refusals."""

from __future__ import annotations

import pytest
import streamlit as st

from dashboard.shaping import pairs
from tests.dashboard.fake_api import DONE, QUEUED, ROUTED, FakeApi
from tests.dashboard.fake_questions import WHY
from tests.dashboard.test_pages import markdown_of, texts


def later(test) -> None:
    """The page as it is a second later, when the question was looked at again."""
    st.cache_data.clear()
    test.run()


def plain(test) -> str:
    return texts(test).replace("\\", "")


def test_a_what_if_is_asked_waited_for_and_shown(app, fake_api: FakeApi) -> None:
    test = app("what_if", job=ROUTED, step=3, seq=1)
    assert not test.exception
    test.selectbox(key="whatif_recipe").set_value("forward-kl")
    test.text_area(key="whatif_changes").set_value("routing: {strength: 0.5}")
    test.button(key="whatif_ask").click().run()
    assert not test.exception
    asked = fake_api.world.questions.asked[0]["request"]
    assert asked == {"recipe": "forward-kl", "method": {"routing": {"strength": 0.5}}, "sequences": [1], "step": 3}
    assert test.query_params["whatif"] == "question_0"
    later(test)
    assert not test.exception
    assert "Step 3, sequence 1: forward-kl" in plain(test)
    assert f"gate tip, coefficient: {WHY}" in plain(test)
    assert "Re-planned minus as trained: change of coefficient" in plain(test)
    assert len(test.get("echarts_chart")) == 1
    numbers = next(frame.value for frame in test.dataframe if "number" in frame.value)
    row = numbers.set_index("number").loc["coefficient"]
    trained, replanned, change = (float(row[name]) for name in ("as trained", "re-planned", "change"))
    assert replanned == pytest.approx(0.5 * trained, abs=1e-4)
    assert change == pytest.approx(-0.5 * trained, abs=1e-4)
    assert row[""] == "approximate"


def test_an_answer_is_a_link_and_an_unknown_one_is_said(app, fake_api: FakeApi) -> None:
    test = app("what_if", job=ROUTED, step=3, whatif="question_9")
    assert not test.exception
    assert "This answer is no longer kept" in texts(test)


def test_changes_that_are_no_mapping_are_refused_before_they_are_sent(app, fake_api: FakeApi) -> None:
    test = app("what_if", job=ROUTED)
    for text, sentence in (("credit: [", "neither YAML nor JSON"), ("just words", "Write a mapping")):
        test.text_area(key="whatif_changes").set_value(text)
        test.button(key="whatif_ask").click().run()
        assert not test.exception
        assert sentence in plain(test)
    assert fake_api.world.questions.asked == []


def test_a_failed_question_says_why_and_what_to_do(app, fake_api: FakeApi) -> None:
    fake_api.world.questions.fail = {
        "code": "too_long",
        "message": "no answer within 300 s <b>bold</b>",
        "param": None,
        "category": "system",
    }
    test = app("what_if", job=ROUTED, step=3)
    test.button(key="whatif_ask").click().run()
    later(test)
    assert not test.exception
    assert "no answer within 300 s <b>bold</b>. Ask about fewer sequences" in plain(test)
    assert "<b>" not in markdown_of(test)


def test_a_run_without_records_has_nothing_to_plan_again(app) -> None:
    test = app("what_if", job=QUEUED)
    assert not test.exception
    assert "No records yet" in texts(test)


def test_a_probe_is_asked_and_shown_like_a_sequence(app, fake_api: FakeApi) -> None:
    test = app("probe", job=DONE)
    assert not test.exception
    prompt = test.text_area(key=f"probe_prompt_{DONE}")
    assert prompt.value.startswith("Tom has 3 apples")  # one of the run's own, to start from
    prompt.set_value("Ann has 2 .")
    test.number_input(key="probe_seed").set_value(4)
    test.selectbox(key="probe_checkpoint").select("step-000060.a1")
    test.button(key="probe_ask").click().run()
    assert not test.exception
    asked = fake_api.world.questions.asked[0]["request"]
    assert (asked["prompt"], asked["seed"], asked["checkpoint"]) == ("Ann has 2 .", 4, "step-000060.a1")
    later(test)
    assert not test.exception
    shown = plain(test)
    assert "demo-forward-kl: what checkpoint step-000060.a1 wrote" in shown
    assert "a prompt of your own has no verified answer" in shown
    assert "Ann has 2 ." in shown
    assert {"student", "teacher"} <= {column for frame in test.dataframe for column in frame.value.columns}


def test_two_students_get_the_same_prompt(app, fake_api: FakeApi) -> None:
    test = app("probe", job=DONE, against=ROUTED)
    test.text_area(key=f"probe_prompt_{DONE}").set_value("Ann has 2 .")
    test.selectbox(key="probe_checkpoint").select("step-000060.a1")
    test.button(key="probe_ask").click().run()
    assert not test.exception
    first, second = fake_api.world.questions.asked
    assert (first["job_id"], second["job_id"]) == (DONE, ROUTED)
    assert second["request"] == first["request"] | {"checkpoint": None}
    assert (test.query_params["probe"], test.query_params["probe2"]) == ("question_0", "question_1")
    later(test)
    assert not test.exception
    shown = plain(test)
    assert "demo-forward-kl: what checkpoint" in shown
    assert "demo-gae-cr: what checkpoint" in shown
    assert ("**Left, token 7**" in shown, "They part at token 7." in shown) == (True, True)
    test.selectbox(key="probe_against").select_index(None).run()
    assert "probe2" not in test.query_params
    assert "demo-gae-cr: what" not in plain(test)


def test_compare_leads_to_a_probe_of_the_two_runs_that_are_looked_at() -> None:
    assert pairs.to_probe(["a", "b", "c"], None, "c") == {"job": "a", "against": "c"}
    assert pairs.to_probe(["a", "b"], "gone", None) == {"job": "a", "against": "b"}
    assert pairs.to_probe(["a", "b"], "b", "b") == {"job": "b"}


@pytest.mark.parametrize(
    ("left", "right", "place"), [([1, 2], [1, 2], None), ([1, 2], [1, 3], 1), ([1], [1, 2], 1), ([], [1], 0)]
)
def test_where_two_sequences_part(left: list[int], right: list[int], place: int | None) -> None:
    assert pairs.parting(left, right) == place


def test_a_prompt_that_cannot_be_used_is_said(app, fake_api: FakeApi) -> None:
    fake_api.world.questions.fail = {
        "code": "unknown_words",
        "message": "prompt: the student's tokenizer does not know 'bananas'",
        "param": "prompt",
        "category": "user",
    }
    test = app("probe", job=DONE)
    test.button(key="probe_ask").click().run()
    later(test)
    assert not test.exception
    assert "does not know 'bananas'" in plain(test)
