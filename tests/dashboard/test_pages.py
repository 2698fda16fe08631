"""Every page over the fake service: what it shows, what it does, what it says when things are missing."""

from __future__ import annotations

import json

import pytest

from dashboard.components import selection
from tests.dashboard.fake_api import DONE, FAILED, HOSTILE, QUEUED, ROUTED, RUNNING, SHORTER, TOTAL, FakeApi

JOB_PAGES = ("overview", "tokens", "returns", "gates", "routing")


def texts(test) -> str:
    """Everything a reader sees outside charts and tables."""
    kinds = ("markdown", "caption", "text", "code", "error", "warning", "info", "success", "subheader", "header")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(test, kind))


def markdown_of(test) -> str:
    """Everything that is interpreted as markdown."""
    kinds = ("markdown", "caption", "error", "warning", "info", "success", "subheader", "header")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(test, kind))


def metric(test, label: str) -> str:
    return next(m.value for m in test.metric if m.label == label)


# --- runs ---------------------------------------------------------------------------------------------------------


def test_runs_lists_and_filters(app) -> None:
    test = app()
    assert not test.exception
    everything = ["sweep-03", "demo-live", "bad column", "demo-forward-kl", "demo-gae-cr"]
    assert list(test.dataframe[0].value["Run"]) == everything
    test.text_input(key="runs_text").set_value("tml live").run()
    assert list(test.dataframe[0].value["Run"]) == ["demo-live"]
    test.text_input(key="runs_text").set_value("no such run").run()
    assert "None of the 5 runs match." in texts(test)


def test_the_actions_of_a_run_are_asked_for_in_its_row(app, fake_api: FakeApi) -> None:
    test = app()
    assert not [button for button in test.button if button.key == "action_pause"]
    test.session_state["runs_chosen"] = RUNNING
    test.run()
    test.button(key="action_pause").click().run()
    assert not test.exception
    assert fake_api.world.jobs[RUNNING]["status"] == "paused"
    test.button(key="action_resume").click().run()
    assert fake_api.world.jobs[RUNNING]["status"] == "running"
    test.button(key="action_save").click().run()
    assert fake_api.world.jobs[RUNNING]["save_wanted"] is True


def test_a_wish_that_is_refused_is_said_and_breaks_nothing(app, fake_api: FakeApi) -> None:
    test = app("overview", job=RUNNING)
    fake_api.world.jobs[RUNNING]["status"] = "finalizing"
    test.button(key="action_pause").click().run()
    assert not test.exception
    assert test.toast[0].value.replace("\\", "") == "a job that is finalizing cannot pause"


def test_delete_asks_first_and_takes_the_run_away(app, fake_api: FakeApi) -> None:
    test = app("overview", job=DONE)
    test.button(key="delete_yes").click().run()
    assert not test.exception
    assert DONE not in fake_api.world.jobs
    assert "demo-forward-kl" not in list(test.dataframe[0].value["Run"])


# --- a new run ----------------------------------------------------------------------------------------------------


def test_the_gallery_leads_to_the_form(app) -> None:
    test = app("new_run")
    assert not test.exception
    assert [button.key for button in test.button] == ["choose_forward-kl", "choose_tml-opd", "choose_gae-cr-opd"]
    test.text_input(key="gallery_text").set_value("sampled thinking").run()
    assert [button.key for button in test.button] == ["choose_tml-opd"]
    test.button(key="choose_tml-opd").click().run()
    assert test.query_params["recipe"] == "tml-opd"
    assert "L = -mean_t sg(r_t) log pi(y_t)" in [code.value for code in test.code]
    test.number_input(key="new_recipe-tml-opd_seed").set_value(5)
    test.button(key="new_another").click().run()
    test.button(key="choose_forward-kl").click().run()
    assert test.number_input(key="new_recipe-forward-kl_seed").value == 5
    assert "There is no recipe nope" in texts(app("new_run", recipe="nope"))


def test_the_form_shows_what_is_wrong_at_the_field(app, fake_api: FakeApi) -> None:
    test = app("new_run", recipe="forward-kl")
    assert "Source\\: GKD, arXiv 2306\\.13649" in texts(test)
    test.number_input(key="new_recipe-forward-kl_optimizer.lr").set_value(0.0)
    test.button(key="new_validate").click().run()
    at_the_field, below = (error.value for error in test.error)
    assert below == f"**optimizer\\.lr** · {at_the_field}"
    test.number_input(key="new_recipe-forward-kl_optimizer.lr").set_value(0.001)
    test.button(key="new_validate").click().run()
    assert test.warning[0].value == "seed 0 is everyone's seed"
    assert not test.error
    assert fake_api.world.submitted == []


def test_submit_sends_what_the_page_shows_and_jumps_to_the_run(app, fake_api: FakeApi) -> None:
    test = app("new_run", recipe="gae-cr-opd")
    prefix = "new_recipe-gae-cr-opd"
    test.text_input(key=f"{prefix}_name").set_value("mine")
    test.number_input(key=f"{prefix}_method.credit.gamma").set_value(0.5)
    test.selectbox(key=f"{prefix}_method.support.kind").select("full").run()
    test.multiselect(key=f"{prefix}_method.gates").set_value(["window"]).run()
    test.number_input(key=f"{prefix}_method.gates.window.stop").set_value(8).run()
    shown = json.loads(next(code.value for code in test.code if code.value.startswith("{")))
    test.button(key="new_submit").click().run()
    assert not test.exception
    (spec,) = fake_api.world.submitted
    assert spec == shown
    assert spec["name"] == "mine"
    assert spec["method"]["credit"] == {"gamma": 0.5}
    assert spec["method"]["support"]["kind"] == "full"
    (gate,) = spec["method"]["gates"]
    assert (gate["kind"], gate["start"], gate["stop"]) == ("window", 0, 8)
    assert set(spec["method"]) == {"credit", "support", "gates"}
    assert test.query_params["job"] == "job_0new0"
    assert "Waiting for a free worker" in test.get("progress")[0].text


def test_duplicate_and_fork_open_the_form(app, fake_api: FakeApi) -> None:
    test = app("overview", job=ROUTED)
    test.button(key="action_duplicate").click().run()
    assert test.text_input(key=f"new_like-{ROUTED}_name").value == "demo-gae-cr"
    fork = app("overview", job=ROUTED)
    fork.button(key="action_fork").click().run()
    assert fork.query_params == {"fork": ROUTED, "checkpoint": "ckpt_export"}
    fork = app("new_run", fork=ROUTED, checkpoint="ckpt_export")  # AppTest itself stays on the page that it left
    fork.button(key="new_submit").click().run()
    assert not fork.exception
    (spec,) = fake_api.world.submitted
    assert spec["from"] == {"job": ROUTED, "checkpoint": "ckpt_export"}
    assert (spec["name"], "method" in spec) == ("demo-gae-cr-fork", False)


# --- the fleet ----------------------------------------------------------------------------------------------------


def test_the_fleet_and_what_to_do_about_it(app) -> None:
    test = app("fleet")
    assert not test.exception
    assert [next(iter(frame.value.iloc[:, 0])) for frame in test.dataframe][:2] == ["cpu0@node-1", "cpu"]
    assert list(test.dataframe[0].value["Memory"]) == ["0.50 GiB", "–", "–"]
    assert "Nobody serves **gpu**, and 2 wait in it" in texts(test)
    assert "celery -A worker.app worker -c 1 -Q gpu" in [code.value for code in test.code]
    assert HOSTILE not in markdown_of(test)


def test_an_empty_fleet_says_what_to_do(app, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.dashboard import fake_fleet

    for name in ("workers", "queues", "failures"):
        monkeypatch.setattr(fake_fleet, name, lambda *_: [])
    test = app("fleet")
    assert "opd up" in texts(test)
    assert "celery -A worker.app worker -c 1 -Q cpu" in [code.value for code in test.code]
    assert "None: every start so far ended as its user or operator wanted." in texts(test)


# --- one run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", JOB_PAGES)
@pytest.mark.parametrize("job", [DONE, RUNNING, FAILED, QUEUED, ROUTED])
def test_every_page_opens_for_every_state(app, page: str, job: str) -> None:
    test = app(page, job=job)
    assert not test.exception
    assert test.query_params["job"] == job


def test_the_short_link_opens_the_overview(app) -> None:
    test = app(job=DONE)
    assert metric(test, "Student after") == "95.4 %"


def test_overview_of_a_finished_run(app) -> None:
    test = app("overview", job=DONE)
    assert metric(test, "Teacher") == "98.0 %"
    assert metric(test, "Compute") == "18.6 TFLOP"
    assert (metric(test, "Training time"), metric(test, "Since its start")) == ("22 s", "2 min 6 s")
    assert len(test.get("echarts_chart")) == 10
    assert not [button for button in test.button if button.key == "cancel_yes"]
    assert "ckpt_export" in texts(test)


def test_overview_shows_what_the_objective_did_and_warns(app) -> None:
    test = app("overview", job=ROUTED)
    headings = [heading.value for heading in test.subheader]
    assert headings[1:5] == ["Health", "Learning", "What the objective does", "Optimizer and machine"]
    assert len(test.get("echarts_chart")) == 10 + 8
    assert [warning.value.replace("\\", "") for warning in test.warning] == [SHORTER]
    assert "What the objective does" not in [heading.value for heading in app("overview", job=DONE).subheader]


def test_overview_of_a_failed_run_says_why_and_stays_harmless(app) -> None:
    test = app("overview", job=FAILED)
    assert test.error[0].value.startswith("task\\.prompt\\_column\\: there is no column 'question' \\<img src\\=x")
    assert "<img" not in markdown_of(test).replace("\\<img", "")


def test_cancel(app, fake_api: FakeApi) -> None:
    test = app("overview", job=RUNNING)
    test.button(key="cancel_yes").click().run()
    assert fake_api.world.jobs[RUNNING]["status"] == "cancelled"
    assert "Stopped after 12 steps" in test.get("progress")[0].text


def test_no_records_yet(app) -> None:
    for page in ("tokens", "returns", "gates", "routing"):
        assert "No records yet: the first step is on its way." in texts(app(page, job=QUEUED))


def test_tokens_follow_the_newest_step_until_one_is_chosen(app, fake_api: FakeApi) -> None:
    test = app("tokens", job=RUNNING)
    assert test.select_slider[0].value == 12
    fake_api.world.advance(3)
    import streamlit as st

    st.cache_data.clear()
    # Under a new key: what the browser still says of the old one is no choice of the reader's.
    assert test.run().select_slider(key="tokens_step_15").value == 15
    assert "tokens_follow" not in [button.key for button in test.button]
    test.select_slider(key="tokens_step_15").set_value(4).run()
    assert test.query_params["step"] == "4"
    assert test.select_slider(key="tokens_step").value == 4
    test.button(key="tokens_follow").click().run()
    assert "step" not in test.query_params
    assert test.select_slider(key="tokens_step_15").value == 15


@pytest.mark.parametrize("page", ["tokens", "returns"])
def test_a_slider_that_reports_where_it_was_drawn_ends_no_following(app, page: str) -> None:
    """A page that was opened from another may report so: its slider is unknown to what the server remembers."""
    test = app(page, job=RUNNING)
    (slider,) = test.select_slider
    shown = int(slider.value)
    # What the browser sends although nobody touched it, and what a reader's choice looks like.
    for value, pinned in ((shown, False), (shown - 1, True)):
        test.session_state[slider.key] = None
        slider.set_value(value).run()
        assert ("step" in test.query_params) is pinned


def test_a_link_restores_step_sequence_token_and_colour(app) -> None:
    test = app("tokens", job=DONE, step=20, seq=2, token=3, color="gate")
    assert test.select_slider(key="tokens_step").value == 20
    assert test.selectbox(key="tokens_seq").value == 2
    assert test.get("pills")[0].value == "gate"
    assert "Token 3" in [heading.value for heading in test.subheader]
    assert HOSTILE.replace(" ", "·") in test.text[0].value


def test_the_chain_of_a_token_with_critic_gates_and_components(app) -> None:
    test = app("tokens", job=ROUTED, step=20, token=6)
    labels = [one.label.replace("\\", "") for one in test.metric]
    assert labels == [
        *("log-ratio r", "→ return", "value V", "→ advantage", "× gate tip", "× gate prefix weight", "→ coefficient"),
        *("= part log ratio", "+ part baseline", "+ part temporal"),
    ]
    values = dict(zip(labels, (one.value for one in test.metric), strict=True))
    assert (values["value V"], values["× gate tip"], values["× gate prefix weight"]) == ("-2.100", "1.000", "1.389")
    parts = sum(float(values[name]) for name in ("= part log ratio", "+ part baseline", "+ part temporal"))
    assert parts == pytest.approx(float(values["→ coefficient"]), abs=2e-3)


@pytest.mark.parametrize("color", ["value", "gate:tip", "part:temporal", "coefficient"])
def test_the_strip_is_coloured_by_what_the_run_has(app, color: str) -> None:
    assert app("tokens", job=ROUTED, step=20, color=color).get("pills")[0].value == color
    plain = app("tokens", job=RUNNING, step=10, color=color).get("pills")[0]
    assert plain.value == ("coefficient" if color == "coefficient" else "log_ratio")


def test_choosing_a_colour_writes_the_link(app) -> None:
    test = app("tokens", job=ROUTED, step=20)
    test.get("pills")[0].set_value("gate:prefix_weight").run()
    assert test.query_params["color"] == "gate:prefix_weight"
    assert "gate prefix weight\\: this gate alone" in texts(test)


@pytest.mark.parametrize("query", [{"step": "x", "seq": "-1", "token": "9" * 30}, {"step": 9999, "seq": 99}])
def test_a_broken_link_shows_something_sensible(app, query: dict[str, object]) -> None:
    test = app("tokens", job=DONE, **query)
    assert not test.exception
    assert test.select_slider(key="tokens_step").value == TOTAL
    assert test.selectbox(key="tokens_seq").value == 0


def test_choosing_a_sequence_forgets_the_token(app) -> None:
    test = app("tokens", job=DONE, step=20, token=3)
    test.selectbox(key="tokens_seq").select(1).run()
    assert test.query_params["seq"] == "1"
    assert "token" not in test.query_params


def test_no_model_text_is_markdown(app) -> None:
    for page in ("tokens", "routing"):
        shown = markdown_of(app(page, job=DONE, step=20, token=3))
        assert "onerror" not in shown
        assert "apples" not in shown


def test_routing_range_and_states(app) -> None:
    test = app("routing", job=DONE)
    assert f"**{9 * TOTAL} probed states**" in texts(test)
    test.select_slider(key="routing_range").set_range(10, 19).run()
    assert (test.query_params["from"], test.query_params["to"]) == ("10", "19")
    assert "**90 probed states** of steps 10 to 19" in texts(test)


def test_routing_shows_what_the_plan_sent_and_the_balance(app) -> None:
    test = app("routing", job=ROUTED)
    assert len(test.get("echarts_chart")) == 3
    assert "**Sent by the plan**" in texts(test)
    found = {one.label: one.value for one in test.metric}
    assert found == {
        "Suppressed tokens": "1,234",
        "Released": "0.438",
        "Routed": "0.250",
        "Send nothing": "6.2 %",
    }
    assert list(test.dataframe[0].value.columns) == [
        *("suppressed", "seen", "destination", "sent", "predicted", "realised")
    ]


def test_the_routing_range_of_a_running_job_moves_with_it(app, fake_api: FakeApi) -> None:
    test = app("routing", job=RUNNING)
    assert test.select_slider[0].value == (1, 12)
    fake_api.world.advance(3)
    import streamlit as st

    st.cache_data.clear()
    slider = test.run().select_slider[0]
    assert (slider.value, slider.key) == ((1, 15), "routing_range_(1, 15)")
    slider.set_range(3, 9).run()
    assert (test.select_slider[0].value, test.select_slider[0].key) == ((3, 9), "routing_range")


@pytest.mark.parametrize(("job", "why"), [(RUNNING, "plain softmax decides"), (DONE, "takes the direct route")])
def test_routing_says_why_nothing_is_sent(app, job: str, why: str) -> None:
    test = app("routing", job=job)
    assert why in texts(test)
    assert len(test.get("echarts_chart")) == 2
    assert not test.metric


def test_another_run_starts_without_the_old_selection(app) -> None:
    test = app("tokens", job=DONE, step=20, seq=2, token=3)
    test.selectbox(key="run_picker").select(RUNNING).run()
    assert {key: test.query_params[key] for key in selection.KEYS if key in test.query_params} == {"job": RUNNING}


def test_the_direct_route_is_explained(app) -> None:
    assert "takes the direct route" in texts(app("tokens", job=DONE))
    assert "takes the direct route" not in texts(app("tokens", job=RUNNING))


# --- trouble ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["job_0nosuch", "../../etc/passwd", "job_0done?x=1"])
def test_unknown_run(app, job: str) -> None:
    test = app("overview", job=job)
    assert not test.exception
    assert test.warning[0].value.startswith("**Not found.**")


@pytest.mark.parametrize("page", ["runs", *JOB_PAGES])
def test_wrong_token_is_one_message_and_heals(app, fake_api: FakeApi, page: str) -> None:
    fake_api.accepts = "another"
    test = app(page)
    assert len(test.error) == 1
    assert "refuses this dashboard's token" in test.error[0].value
    fake_api.accepts = "fake-token"
    test.run()
    assert not test.error


def test_unreachable_is_one_message(app, fake_api: FakeApi) -> None:
    fake_api.close()
    test = app()
    assert not test.exception
    assert [error.value.startswith("**The API does not answer.**") for error in test.error] == [True]


def test_no_runs_at_all(app, fake_api: FakeApi) -> None:
    fake_api.world.jobs.clear()
    assert "No runs yet." in texts(app())
    for page in JOB_PAGES:
        assert "No runs yet." in texts(app(page))


# --- returns, gates, health -----------------------------------------------------------------------------------------


def test_returns_of_a_run_with_a_critic(app) -> None:
    test = app("returns", job=ROUTED, step=20, quantity="value")
    assert not test.exception
    assert test.get("pills")[0].value == "value"
    assert len(test.get("echarts_chart")) == 4
    assert "Critic" in [heading.value for heading in test.subheader]
    assert metric(test, "below zero") == "37.5 %"
    test.get("pills")[0].set_value("kl").run()
    assert test.query_params["quantity"] == "kl"


def test_returns_of_a_run_without_a_critic_or_that_quantity(app) -> None:
    test = app("returns", job=DONE, quantity="value")
    assert test.get("pills")[0].value == "log_ratio"
    assert len(test.get("echarts_chart")) == 3


def test_gates_show_budget_silenced_tokens_and_overlap(app) -> None:
    test = app("gates", job=ROUTED, gate="tip")
    assert not test.exception
    assert test.get("pills")[0].value == "tip"
    assert metric(test, "Silenced, recorded") == "50.0 %"
    assert 45 < float(metric(test, "Speak, newest step").removesuffix(" %")) <= 50
    assert list(test.dataframe[0].value["by chance"]) == [5.0, 5.0]
    assert len(test.get("echarts_chart")) == 3
    assert "onerror" not in markdown_of(test)
    test.get("pills")[0].set_value("").run()
    assert "gate" not in test.query_params


def test_a_run_without_gates_says_where_to_find_some(app) -> None:
    assert "This recipe has no gates" in texts(app("gates", job=DONE))


def test_the_overview_shows_the_lights_once_there_are_any(app) -> None:
    test = app("overview", job=DONE)
    labels = [expander.label for expander in test.expander if "A1" in expander.label]
    assert labels
    assert "look now" in labels[0]
    assert not [expander for expander in app("overview", job=QUEUED).expander if "A1" in expander.label]


def test_one_suppressed_token_leads_to_its_places(app) -> None:
    test = app("routing", job=ROUTED, source=5, maps="predicted,realised,plain,rerouted,nothing")
    assert not test.exception
    assert len(test.get("echarts_chart")) == 4
    assert "**Predicted − softmax alone**: what the method itself redirects." in texts(test)
    assert "17 recorded places" in texts(test)
    assert list(test.dataframe[0].value["step"]) == [20, 4]
    test.selectbox(key="routing_source").select(4).run()
    assert test.query_params["source"] == "4"
    test.pills(key="routing_maps").set_value(["plain"]).run()
    assert (test.query_params["maps"], len(test.get("echarts_chart"))) == ("plain", 1)


# --- the strip's keys and playing -----------------------------------------------------------------------------------


def test_playing_goes_through_the_steps_and_stops_at_the_end(app) -> None:
    test = app("tokens", job=DONE, step=TOTAL - 1)
    test.button(key="tokens_play").click().run()
    assert test.query_params["step"] == str(TOTAL)
    test.run()
    assert test.button(key="tokens_play").label == "Play"
    assert test.query_params["step"] == str(TOTAL)


def test_playing_from_the_end_begins_at_the_first_step(app) -> None:
    test = app("tokens", job=DONE)
    test.button(key="tokens_play").click().run()
    assert int(test.query_params["step"]) <= 3
    assert test.button(key="tokens_play").label == "Pause"


def test_the_loudest_token_is_shown_until_one_is_chosen(app) -> None:
    from tests.dashboard.fake_api import sequence

    ratios = [abs(token["log_ratio"]) for token in sequence(20, 0)["tokens"]]
    test = app("tokens", job=DONE, step=20)
    assert f"Token {ratios.index(max(ratios))}" in [heading.value for heading in test.subheader]


def test_another_step_stands_beside(app) -> None:
    test = app("tokens", job=DONE, step=20, other=10)
    assert "Step 10, sequence 0, on the scale of step 20" in texts(test)


def test_a_second_number_below_the_tokens(app) -> None:
    test = app("tokens", job=ROUTED, step=20, second="value")
    assert not test.exception
    assert test.selectbox(key="tokens_second").value == "value"
