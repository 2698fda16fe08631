"""From the gallery through the form to a run, and what can be done with it; the fleet. In a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Viewer
from tests.browser.test_pages import BOTH, theme_of
from tests.dashboard.fake_api import DONE, ROUTED, RUNNING, FakeApi


def press(page: Page, name: str) -> None:
    """Click a button once it can be clicked."""
    page.get_by_role("button", name=name, exact=True).click()


def test_from_the_gallery_to_a_run_that_is_paused_resumed_and_deleted(viewer: Viewer, fake_api: FakeApi) -> None:
    page = viewer.page
    viewer.open("/")
    press(page, "New run")
    expect(page.get_by_role("heading", name="Log-ratio route")).to_be_visible()
    press(page, "gae-cr-opd")
    name = page.get_by_role("textbox", name="Name")
    expect(name).to_have_value("demo-gae-cr-opd")
    name.fill("from-the-browser")
    name.press("Enter")
    page.get_by_text("Credit · gae").click()
    gamma = page.get_by_role("spinbutton", name="gamma")
    gamma.fill("0.5")
    gamma.press("Enter")
    press(page, "Validate")
    expect(page.get_by_text("Accepted, with warnings.")).to_be_visible()
    expect(page.get_by_test_id("stMetric").filter(has_text="Memory")).to_contain_text("2.00 GiB")
    viewer.shot("new-run-estimate-light")
    press(page, "Submit")
    expect(page.get_by_role("heading", name="from-the-browser")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/overview\?job=job_0new0"))
    (spec,) = fake_api.world.submitted
    assert (spec["name"], spec["recipe"], spec["method"]) == (
        "from-the-browser",
        "gae-cr-opd",
        {"credit": {"gamma": 0.5}},
    )

    job = fake_api.world.jobs["job_0new0"]
    press(page, "Pause")
    expect(page.get_by_text("Paused after 0 steps")).to_be_visible()
    assert job["status"] == "paused"
    press(page, "Resume")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    assert job["status"] == "running"

    press(page, "Cancel")
    expect(page.get_by_text("Its last checkpoint stays")).to_be_visible()
    assert job["status"] == "running"  # asked first
    press(page, "Yes, cancel this run")
    expect(page.get_by_text("Stopped after 0 steps")).to_be_visible()
    press(page, "Delete")
    press(page, "Yes, delete this run")
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    assert "job_0new0" not in fake_api.world.jobs


def test_a_mistake_is_shown_at_the_field(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open("/new_run?recipe=forward-kl")
    rate = page.get_by_role("spinbutton", name="Learning rate")
    rate.fill("0")
    rate.press("Enter")
    press(page, "Validate")
    expect(page.get_by_text("must be above 0 (got 0.0)")).to_have_count(2)  # at the field, and by the button
    viewer.shot("new-run-mistake-light")


def test_the_actions_of_a_run_open_in_the_table(viewer: Viewer, fake_api: FakeApi) -> None:
    page = viewer.page
    viewer.open("/")
    grid = page.get_by_test_id("stDataFrame").locator("canvas").first
    expect(grid).to_be_visible()
    page.wait_for_timeout(1500)
    # The table is a canvas below a scroller: click where the dots of the second row are painted.
    box = grid.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 44 + 22, box["y"] + 36 + 36 + 18)
    expect(page.locator(".st-key-runs_actions").get_by_text("demo-live")).to_be_visible()
    viewer.shot("runs-actions-light")
    press(page, "Pause")
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible()
    assert fake_api.world.jobs[RUNNING]["status"] == "paused"


@pytest.mark.parametrize(("button", "key"), [("Duplicate", "like"), ("Fork", "fork")])
def test_another_run_from_this_one(viewer: Viewer, button: str, key: str) -> None:
    viewer.open(f"/?job={ROUTED}")
    press(viewer.page, button)
    expect(viewer.page.get_by_role("heading", name="New run")).to_be_visible()
    expect(viewer.page).to_have_url(re.compile(rf"{key}={ROUTED}"))


@pytest.mark.long  # the tests above open the same pages
@BOTH
@pytest.mark.parametrize(
    ("path", "wait", "name"),
    [
        ("/new_run", "Log-ratio route", "gallery"),
        ("/new_run?recipe=gae-cr-opd", "This run as JSON", "new-run"),
        ("/fleet", "Nobody serves", "fleet"),
        (f"/overview?job={DONE}", "Duplicate", "actions"),
    ],
)
def test_pictures(viewer: Viewer, path: str, wait: str, name: str) -> None:
    viewer.open(path)
    expect(viewer.page.get_by_text(wait).first).to_be_visible()
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"{name}-{theme_of(viewer)}")
