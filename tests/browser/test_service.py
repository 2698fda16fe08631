"""The four pages over a really running service: submit from the form, watch it train, see it end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Viewer, dashboard_over, tab
from tests.cli.running import service, wait_until

pytestmark = pytest.mark.service

# By section of the form: role, label, value.
SETTINGS = {
    "Task": [("textbox", "prompt column", "question"), ("textbox", "answer column", "answer")],
    "Rollout": [("spinbutton", "prompts per step", "8"), ("spinbutton", "max new tokens", "12")],
    "Telemetry": [("spinbutton", "sequences per step", "3"), ("spinbutton", "probe states", "8")],
}
STEPS = 240


@pytest.fixture
def service_viewer(
    tiny_world, tmp_path_factory: pytest.TempPathFactory, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Viewer]:
    """A tab on the dashboard of a service that may load the tiny models."""
    for name in ("OPD_API_URL", "OPD_API_TOKEN", "OPD_HOME", "OPD_REDIS_URL", "OPD_DATABASE_URL", "OPD_ARTIFACTS_URL"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    root = str(tiny_world.root)
    with service(home, OPD_MODEL_ROOTS=root, OPD_DATA_ROOTS=root):
        api_url = json.loads((home / "run" / "service.json").read_text())["api_url"]
        token = (home / "token").read_text().strip()
        with (
            dashboard_over(api_url, token, home / "dashboard.log") as base,
            tab(browser, base, theme="light", name="service") as viewer,
        ):
            yield viewer
        assert "Traceback" not in (home / "dashboard.log").read_text()


def choose(page: Page, label: str, value: str) -> None:
    """Type a value that is not in the list into a choice."""
    box = page.get_by_role("combobox", name=label, exact=True)
    box.click()
    box.fill(value)
    box.press("Enter")
    expect(box).to_have_value(value)


def submit(viewer: Viewer, tiny_world) -> None:
    """Fill in the form and submit."""
    page = viewer.page
    viewer.open("/new_run?recipe=forward-kl")
    page.get_by_role("textbox", name="Name", exact=True).fill("watched")
    choose(page, "Student", str(tiny_world.student))
    choose(page, "Teacher", str(tiny_world.teacher))
    choose(page, "Task", str(tiny_world.problems))
    page.get_by_role("spinbutton", name="Steps").fill(str(STEPS))
    for section, inputs in SETTINGS.items():
        page.locator("summary").get_by_text(section, exact=True).click()
        for role, label, value in inputs:
            box = page.get_by_role(role, name=label)
            box.fill(value)
            box.press("Enter")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="watched")).to_be_visible()


def number(text: str | None, pattern: str) -> int:
    """The first group of the pattern in the text, as a number."""
    found = re.search(pattern, text or "")
    assert found is not None, f"{pattern} is not in {text!r}"
    return int(found.group(1))


def grows(viewer: Viewer, pattern: str, what: str) -> None:
    """Wait until the number behind the pattern has grown on the page."""
    main = viewer.page.get_by_test_id("stMain")
    viewer.page.get_by_text(re.compile(pattern)).first.wait_for(timeout=90_000)
    first = number(main.inner_text(), pattern)
    wait_until(lambda: number(main.inner_text(), pattern) > first, what, 60)


def test_submit_and_watch(service_viewer: Viewer, tiny_world: object) -> None:
    viewer, page = service_viewer, service_viewer.page
    viewer.open("/")
    expect(page.get_by_text("No runs yet.")).to_be_visible()
    submit(viewer, tiny_world)

    grows(viewer, rf"Step (\d+) of {STEPS}", "the overview follows the steps")
    viewer.shot("service-overview")

    page.get_by_role("link", name="Tokens").click()
    expect(page.locator(".st-key-strip .token").first).to_be_visible()
    slider = page.get_by_role("slider")
    first = int(slider.get_attribute("aria-valuetext") or 0)
    wait_until(lambda: int(slider.get_attribute("aria-valuetext") or 0) > first, "the tokens follow the steps", 60)
    page.locator(".st-key-strip .token").nth(1).click()
    expect(page.get_by_role("heading", name="Token 1", exact=True)).to_be_visible()
    viewer.shot("service-tokens")

    page.get_by_role("link", name="Routing").click()
    expect(page.get_by_test_id("stEChartsChart")).to_have_count(3)
    grows(viewer, r"of steps \d+ to (\d+)", "the heatmap follows the steps")
    viewer.shot("service-routing")

    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    page.wait_for_timeout(1500)
    viewer.shot("service-runs")

    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_text(f"Did all {STEPS} steps")).to_be_visible(timeout=180_000)
    expect(page.get_by_role("heading", name="Results")).to_be_visible()
    expect(page.get_by_role("button", name="report.json")).to_be_visible()
    page.wait_for_timeout(1500)
    viewer.shot("service-finished")
