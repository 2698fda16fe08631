"""The compare page in a real browser over the fake service, and the file that the overview hands out."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Viewer
from tests.browser.test_pages import BOTH, theme_of
from tests.dashboard.fake_api import DONE, HOSTILE, QUEUED, ROUTED, RUNNING, FakeApi

RUNS = f"{RUNNING},{DONE},{ROUTED},{QUEUED}"


def token(viewer: Viewer, side: str, pos: int) -> Locator:
    """A token of one of the two strips."""
    return viewer.page.locator(f".st-key-strip_{side} .token[data-pos='{pos}']")


@BOTH
def test_compare_page(viewer: Viewer) -> None:
    viewer.open(f"/compare?jobs={RUNS}&x=student_tokens&left={DONE}&right={ROUTED}")
    expect(viewer.page.get_by_test_id("stEChartsChart")).to_have_count(5)
    expect(viewer.page.get_by_text("Equal budget: 10.2 k student tokens")).to_be_visible()
    expect(viewer.page.get_by_text("Not measured on this axis: sweep-03.")).to_be_visible()
    expect(token(viewer, "right", 26)).to_have_text("<eos>")
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"compare-{theme_of(viewer)}")


def test_tokens_of_two_runs_side_by_side(viewer: Viewer) -> None:
    viewer.open(f"/compare?jobs={DONE},{ROUTED}&near=20")
    expect(token(viewer, "left", 3)).to_have_text(HOSTILE.replace(" ", "·"))
    token(viewer, "left", 9).click()
    expect(viewer.page.get_by_text("Left, token 9")).to_be_visible()
    token(viewer, "right", 4).click()
    expect(viewer.page.get_by_text("Right, token 4")).to_be_visible()
    expect(viewer.page).to_have_url(re.compile("lt=9"))
    expect(viewer.page).to_have_url(re.compile("rt=4"))
    expect(viewer.page.locator("img[src='x']")).to_have_count(0)


def test_the_axis_and_the_runs_are_in_the_link(viewer: Viewer) -> None:
    viewer.open(f"/compare?jobs={DONE},{ROUTED}")
    viewer.page.get_by_role("radio", name="FLOPs").click()
    expect(viewer.page).to_have_url(re.compile("x=flops"))
    expect(viewer.page.get_by_text("Equal budget: 18.6 T FLOPs")).to_be_visible()
    link = viewer.page.url.removeprefix(viewer.base)
    viewer.open("/")
    viewer.open(link)
    expect(viewer.page.get_by_text("Equal budget: 18.6 T FLOPs")).to_be_visible()


def test_the_comparison_follows_a_running_job(viewer: Viewer, fake_api: FakeApi) -> None:
    viewer.open(f"/compare?jobs={RUNNING},{DONE}")
    expect(viewer.page.get_by_text("Equal budget: 10 steps")).to_be_visible()
    fake_api.world.advance(8)
    expect(viewer.page.get_by_text("Equal budget: 20 steps")).to_be_visible()


def test_a_run_is_taken_home_from_its_overview(viewer: Viewer) -> None:
    viewer.open(f"/overview?job={DONE}")
    with viewer.page.expect_download() as waiting:
        viewer.page.get_by_role("button", name="This run as one HTML file").click()
    assert waiting.value.suggested_filename == f"opd-{DONE}.html"
    assert waiting.value.path().read_bytes() == b'{"exported": "job_0done"}'


@pytest.mark.parametrize("query", ["", f"?jobs={DONE}"])
def test_fewer_than_two_runs_are_asked_for_more(viewer: Viewer, query: str) -> None:
    viewer.open(f"/compare{query}")
    expect(viewer.page.get_by_text("Choose at least two runs")).to_be_visible()
