"""Heatmaps by position and step, bands, distribution; gates; health."""

from __future__ import annotations

import pytest

from api.schemas import GateSummary, Health, Job, Metrics, Profile
from dashboard.shaping import gates, health, profiles
from tests.dashboard import fake_profiles
from tests.dashboard.fake_api import BIDI, HOSTILE, ROUTED, World


def found(field: str = "log_ratio", first: int = 1, last: int = 16) -> Profile:
    return Profile.model_validate(fake_profiles.profile(field, first, last, 16, whole=True))


def test_the_heatmap_has_a_cell_for_every_mean() -> None:
    profile = found()
    profile.mean[1][0] = None
    option = profiles.heatmap(profile, profiles.mean_scale(profile, signed=True), theme="light")
    cells = option["dataset"]["source"]
    assert len(cells) == fake_profiles.POSITIONS * fake_profiles.BINS - 1
    assert cells.iloc[0].tolist() == ["1–2", "0", -0.0, 8]
    assert option["visualMap"]["min"] == -option["visualMap"]["max"]
    assert option["xAxis"]["data"][:2] == ["1–2", "3–4"]


def test_wide_bins_say_so_and_a_gate_starts_at_nothing() -> None:
    profile = found("gate").model_copy(update={"position_width": 4, "positions": [0, 4, 8, 12, 16, 20]})
    option = profiles.heatmap(profile, profiles.mean_scale(profile, signed=False, at_least=1.0), theme="dark")
    assert option["yAxis"]["data"][:2] == ["0–3", "4–7"]
    assert (option["visualMap"]["min"], option["visualMap"]["max"]) == (0, 1.0)


def test_bands_are_stacked_from_their_lower_end() -> None:
    table = profiles.bands(found())["dataset"]["source"]
    assert table["5 % to 95 % from"][0] == pytest.approx(-0.45)
    assert table["5 % to 95 %"][0] == pytest.approx(0.9)
    assert table["median"][0] == 0.0
    assert table["mean"][0] == -0.25


def test_the_histogram_is_in_percent_and_cut_to_what_is_filled() -> None:
    profile = found()
    assert list(profiles.histogram(profile)["dataset"]["source"]["share"]) == [12.5, 25.0, 50.0, 12.5]
    assert profiles.histogram(profile.model_copy(update={"histogram": [0, 0, 0, 0]})) is None
    few = profiles.histogram(profile.model_copy(update={"histogram": [0, 0, 0, 3]}))["dataset"]["source"]
    assert list(few["between"]) == ["0 to 1", "1 to 4"]


def test_facts_count_what_is_below_zero() -> None:
    assert dict(profiles.facts(found()))["below zero"] == "37.5 %"
    assert dict(profiles.facts(found()))["tokens"] == "8"
    assert profiles.facts(found(first=99, last=99)) == []


def test_value_and_return_share_the_positions() -> None:
    lines = {"value V": found("value", 3, 3), "return": found("return", 3, 3)}
    table = profiles.by_position(lines)["dataset"]["source"]
    assert list(table["position"]) == [0, 1, 2, 3, 4, 5]
    assert list(table["return"]) == pytest.approx([0, -0.1, -0.2, -0.3, -0.4, -0.5])
    assert profiles.by_position({"value V": found("value", 99, 99)}) is None


def test_only_quantities_that_the_run_has_are_offered() -> None:
    assert profiles.offered(found())[:3] == ["log_ratio", "return", "advantage"]
    assert not [name for name in profiles.offered(found()) if name.startswith("gate")]


# --- gates --------------------------------------------------------------------------------------------------------


def summary() -> GateSummary:
    made = fake_profiles.gates(None, 1, 16, 16, True, [HOSTILE, BIDI])
    return GateSummary.model_validate(made["summary"])


def test_silenced_tokens_stand_beside_a_random_gate_of_the_same_budget() -> None:
    table = gates.silenced(summary())
    assert list(table["token"]) == [HOSTILE.replace(" ", "·"), "‹U+202E›evil"]
    assert list(table["silenced"]) == [9, 6]
    assert list(table["by chance"]) == [5.0, 5.0]


@pytest.mark.parametrize(
    ("settings", "share"),
    [({"share": 0.25}, 0.25), ({"drop": 0.2}, 0.8), ({"threshold": 0.5}, None), (None, None)],
)
def test_the_budget_that_was_asked_for(settings: dict[str, object] | None, share: float | None) -> None:
    assert gates.budget(settings) == share


def test_gates_of_the_method_are_named_with_their_settings() -> None:
    job = Job.model_validate(World().jobs[ROUTED])
    asked = gates.asked(job)
    assert list(asked) == [gate["kind"] for gate in job.resolved_spec["method"]["gates"]]
    for name, settings in asked.items():
        assert "kind" not in settings
        assert gates.described(name, settings).startswith(name.replace("_", " "))


def test_overlap_has_every_pair_with_its_chance() -> None:
    cells = gates.overlap(summary(), theme="light")["dataset"]["source"]
    assert cells.values.tolist()[1] == ["prefix weight", "tip", 0.25, 0.2]
    assert len(cells) == 4


def test_the_share_over_steps_shows_what_was_asked_for() -> None:
    metrics = Metrics(steps=[0, 1, 2], series={"gate_tip_share": [None, 0.5, 0.25]})
    option = gates.over_steps(metrics, "tip", 0.5)
    assert list(option["dataset"]["source"]["speak"]) == [50.0, 25.0]
    assert option["series"][0]["markLine"]["data"][0]["yAxis"] == 50.0
    assert gates.over_steps(metrics, "other", None) is None


# --- health -------------------------------------------------------------------------------------------------------


def test_the_most_urgent_light_comes_first() -> None:
    known = Health.model_validate(fake_profiles.health(3))
    known.checks.reverse()
    assert [check.status for check in health.sorted_checks(known)] == ["bad", "watch", "good", "unknown"]
    assert health.headline(known) == "1 look now, 1 watch, 1 fine, 1 not measured"


def test_a_light_without_numbers_has_no_curve() -> None:
    known = Health.model_validate(fake_profiles.health(3))
    assert health.curve(known.checks[0], known.steps)["series"][0]["name"] == "overlap"
    assert health.curve(known.checks[3], known.steps) is None
