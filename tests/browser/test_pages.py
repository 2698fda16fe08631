"""The pages about one run in a real browser over the fake service."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Viewer
from tests.dashboard.fake_api import DONE, HOSTILE, ROUTED, RUNNING, SHORTER, FakeApi
from tests.waiting import wait_until

BOTH = pytest.mark.parametrize("viewer", ["light", pytest.param("dark", marks=pytest.mark.long)], indirect=True)


def theme_of(viewer: Viewer) -> str:
    """The name of the colour scheme for file names."""
    return "dark" if viewer.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"


def token(viewer: Viewer, pos: int) -> Locator:
    """A token of the strip."""
    return viewer.page.locator(f".st-key-strip .token[data-pos='{pos}']")


@BOTH
def test_runs_page(viewer: Viewer) -> None:
    viewer.open("/")
    expect(viewer.page.get_by_test_id("stDataFrame")).to_be_visible()
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"runs-{theme_of(viewer)}")


@BOTH
def test_overview_page(viewer: Viewer) -> None:
    viewer.open(f"/?job={DONE}")
    expect(viewer.page).to_have_url(re.compile(rf"/overview\?job={DONE}$"))
    expect(viewer.page.get_by_test_id("stEChartsChart")).to_have_count(10)
    expect(viewer.page.get_by_text("95.4 %")).to_be_visible()
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"overview-{theme_of(viewer)}")


@BOTH
def test_tokens_page(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={DONE}&step=20&token=6")
    expect(token(viewer, 26)).to_have_text("<eos>")
    expect(token(viewer, 6)).to_have_class(re.compile("selected"))
    token(viewer, 8).hover()
    expect(viewer.page.locator(".st-key-strip .card")).to_contain_text("log-ratio r")
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"tokens-{theme_of(viewer)}")


@BOTH
def test_routing_page(viewer: Viewer) -> None:
    viewer.open(f"/routing?job={DONE}")
    expect(viewer.page.get_by_test_id("stEChartsChart")).to_have_count(2)
    expect(viewer.page.get_by_text("540 probed states")).to_be_visible()
    chart = viewer.page.get_by_test_id("stEChartsChart").first
    chart.hover(position={"x": 260, "y": 100})  # the tooltip is HTML: it must not run what a token says
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"routing-{theme_of(viewer)}")


@BOTH
def test_overview_of_a_run_with_critic_gates_and_routing(viewer: Viewer) -> None:
    viewer.open(f"/overview?job={ROUTED}")
    expect(viewer.page.get_by_test_id("stEChartsChart")).to_have_count(18)
    expect(viewer.page.get_by_text(SHORTER)).to_be_visible()
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"overview-routed-{theme_of(viewer)}")


@BOTH
def test_tokens_page_of_a_run_with_critic_gates_and_routing(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={ROUTED}&step=20&token=6&color=gate:tip")
    expect(viewer.page.get_by_role("radio", name="gate tip", exact=True)).to_be_checked()
    expect(token(viewer, 6)).to_have_class(re.compile("selected"))
    closed, opened = (token(viewer, pos).evaluate("e => e.style.background") for pos in (5, 6))
    assert closed != opened  # the fake run's tip gate closes every fourth token
    viewer.page.get_by_role("radio", name="part temporal", exact=True).click()
    expect(viewer.page).to_have_url(re.compile("color=part(:|%3A)temporal"))
    token(viewer, 8).hover()
    expect(viewer.page.locator(".st-key-strip .card")).to_contain_text("gate prefix weight")
    fits_its_box(viewer, "stMetric")
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"tokens-routed-{theme_of(viewer)}")


@BOTH
def test_routing_page_of_a_run_that_routes(viewer: Viewer) -> None:
    viewer.open(f"/routing?job={ROUTED}")
    expect(viewer.page.get_by_test_id("stEChartsChart")).to_have_count(3)
    expect(viewer.page.locator("strong", has_text="Sent by the plan")).to_be_visible()
    fits_its_box(viewer, "stMetric")
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"routing-routed-{theme_of(viewer)}")


@BOTH
def test_returns_page(viewer: Viewer) -> None:
    viewer.open(f"/returns?job={ROUTED}")
    expect(viewer.page.get_by_test_id("stEChartsChart")).to_have_count(4)
    viewer.page.get_by_role("radio", name="value V", exact=True).click()
    expect(viewer.page).to_have_url(re.compile("quantity=value"))
    fits_its_box(viewer, "stMetric")
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"returns-{theme_of(viewer)}")


@BOTH
def test_gates_page(viewer: Viewer) -> None:
    viewer.open(f"/gates?job={ROUTED}&gate=tip")
    expect(viewer.page.get_by_test_id("stEChartsChart")).to_have_count(3)
    viewer.page.get_by_role("radio", name="all gates", exact=True).click()
    expect(viewer.page).not_to_have_url(re.compile("gate=tip"))
    viewer.page.wait_for_timeout(1500)
    viewer.shot(f"gates-{theme_of(viewer)}")


def test_a_light_opens_and_says_what_to_try(viewer: Viewer) -> None:
    viewer.open(f"/overview?job={DONE}")
    light = viewer.page.locator(".st-key-health_A1")
    expect(light).to_contain_text("look now")
    light.locator("summary").click()
    expect(light.get_by_text("a remedy")).to_be_visible()
    expect(light.get_by_test_id("stEChartsChart")).to_be_visible()


def test_from_a_suppressed_token_to_the_place_where_it_was_written(viewer: Viewer) -> None:
    viewer.open(f"/routing?job={ROUTED}&source=5&maps=realised,interference")
    expect(viewer.page.locator("strong", has_text="Realised − predicted").first).to_be_visible()
    expect(viewer.page.get_by_text("17 recorded places")).to_be_visible()
    expect(viewer.page.get_by_test_id("stDataFrame")).to_have_count(2)


def fits_its_box(viewer: Viewer, kind: str) -> None:
    """No label or number of these elements is cut off."""
    cut = viewer.page.get_by_test_id(kind).evaluate_all(
        "boxes => boxes.flatMap(box => [...box.querySelectorAll('*')])"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflow === 'hidden')"
        ".map(e => e.textContent)"
    )
    assert cut == []


def test_model_text_stays_text(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={DONE}&step=20&token=3")
    expect(token(viewer, 3)).to_have_text(HOSTILE.replace(" ", "·"))
    expect(token(viewer, 4)).to_have_text("‹U+202E›evil")
    token(viewer, 3).hover()
    expect(viewer.page.locator(".st-key-strip .card .head")).to_contain_text("<img·src=x")
    expect(viewer.page.locator("img[src='x']")).to_have_count(0)
    # Over every cell of a row of hostile tokens: the tooltips name them.
    viewer.open(f"/routing?job={DONE}")
    chart = viewer.page.get_by_test_id("stEChartsChart").first
    expect(chart).to_be_visible()
    box = chart.bounding_box()
    assert box is not None
    for part in range(2, 10):
        chart.hover(position={"x": box["width"] * part / 10, "y": box["height"] * 0.34})
        viewer.page.wait_for_timeout(120)
    expect(viewer.page.locator("img[src='x']")).to_have_count(0)


def test_click_and_arrow_keys_move_the_selection(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={DONE}&step=20")
    token(viewer, 9).click()
    expect(viewer.page.get_by_role("heading", name="Token 9", exact=True)).to_be_visible()
    expect(viewer.page).to_have_url(re.compile("token=9"))
    for _ in range(3):
        viewer.page.keyboard.press("ArrowRight")
    expect(viewer.page.get_by_role("heading", name="Token 12", exact=True)).to_be_visible()
    viewer.page.keyboard.press("ArrowLeft")
    expect(viewer.page).to_have_url(re.compile("token=11"))
    viewer.page.keyboard.press("End")
    expect(viewer.page.get_by_role("heading", name="Token 26", exact=True)).to_be_visible()
    expect(token(viewer, 26)).to_have_class(re.compile("selected"))


def test_keys_lead_to_extremes_sequences_and_steps(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={DONE}&step=20&token=9")
    token(viewer, 9).click()
    viewer.page.keyboard.press("x")
    expect(viewer.page).not_to_have_url(re.compile("token=9"))
    loudest = re.search(r"token=(\d+)", viewer.page.url)
    viewer.page.keyboard.press("x")
    assert loudest is not None
    expect(viewer.page).not_to_have_url(re.compile(f"token={loudest[1]}$"))
    for key, step, sequence in (("ArrowDown", 20, 1), ("PageDown", 21, 1), ("PageUp", 20, 1), ("ArrowUp", 20, 0)):
        viewer.page.keyboard.press(key)
        expect(viewer.page.locator(".st-key-strip .strip")).to_have_attribute("data-place", f"{DONE}/{step}/{sequence}")
        expect(viewer.page).to_have_url(re.compile(f"step={step}&seq={sequence}"))


def test_space_plays_and_pauses(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={DONE}&step=20&token=9")
    token(viewer, 9).click()
    viewer.page.keyboard.press(" ")
    expect(viewer.page.get_by_role("button", name="Pause")).to_be_visible()
    expect(viewer.page).to_have_url(re.compile("step=2[3-9]"))
    viewer.page.get_by_role("button", name="Pause").click()
    expect(viewer.page.get_by_role("button", name="Play", exact=True)).to_be_visible()


def test_a_second_number_is_drawn_below_the_tokens(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={ROUTED}&step=20&second=value")
    expect(viewer.page.locator(".st-key-strip .strip.barred")).to_be_visible()
    below = token(viewer, 6).evaluate("e => getComputedStyle(e).borderBottomColor")
    assert below != "rgba(0, 0, 0, 0)"
    expect(viewer.page.locator(".st-key-strip .legend.bar .name")).to_have_text("bar: value V")


def test_a_link_restores_the_view_in_another_tab(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={DONE}&step=20")
    viewer.page.get_by_role("radio", name="gate", exact=True).click()
    token(viewer, 9).click()
    expect(viewer.page).to_have_url(re.compile("token=9"))
    expect(viewer.page).to_have_url(re.compile("color=gate"))
    link = viewer.page.url.removeprefix(viewer.base)
    viewer.open("/")
    viewer.open(link)
    expect(viewer.page.get_by_role("heading", name="Token 9", exact=True)).to_be_visible()
    expect(viewer.page.get_by_role("radio", name="gate", exact=True)).to_be_checked()


def test_the_selection_survives_a_visit_to_another_page(viewer: Viewer) -> None:
    viewer.open(f"/tokens?job={DONE}&step=20&seq=2&token=5")
    viewer.page.get_by_role("link", name="Routing").click()
    expect(viewer.page.get_by_text("540 probed states")).to_be_visible()
    viewer.page.get_by_role("link", name="Tokens").click()
    expect(viewer.page.get_by_role("heading", name="Token 5", exact=True)).to_be_visible()
    expect(viewer.page).to_have_url(re.compile(f"job={DONE}&step=20&seq=2&token=5"))


def test_pages_follow_a_running_job_and_stop_with_it(viewer: Viewer, fake_api: FakeApi) -> None:
    viewer.open(f"/?job={RUNNING}")
    expect(viewer.page.get_by_text("Step 12 of 60")).to_be_visible()
    fake_api.world.advance(8)
    expect(viewer.page.get_by_text("Step 20 of 60")).to_be_visible()
    viewer.open(f"/tokens?job={RUNNING}")

    def drawn() -> str:
        return token(viewer, 0).evaluate("e => e.style.background + e.textContent")

    first = drawn()
    fake_api.world.advance(5)
    slider = viewer.page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuetext", "25")
    wait_until(lambda: drawn() != first, "the strip follows", 60)
    # A look at one token pins the step; the run goes on underneath.
    token(viewer, 7).click()
    expect(viewer.page).to_have_url(re.compile("step=25"))
    fake_api.world.advance(5)
    viewer.page.wait_for_timeout(2500)
    expect(slider).to_have_attribute("aria-valuetext", "25")
    viewer.page.get_by_role("button", name="Follow live").click()
    expect(slider).to_have_attribute("aria-valuetext", "30")
    viewer.page.get_by_role("link", name="Overview").click()
    fake_api.world.advance(60)
    expect(viewer.page.get_by_text("Did all 60 steps")).to_be_visible()
    expect(viewer.page.get_by_role("heading", name="Results")).to_be_visible()
    expect(viewer.page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)


def test_open_a_run_from_the_table(viewer: Viewer) -> None:
    viewer.open("/")
    grid = viewer.page.get_by_test_id("stDataFrame").locator("canvas").first
    expect(grid).to_be_visible()
    viewer.page.wait_for_timeout(1500)
    # The table is a canvas below a scroller: click where the arrow of the second row is painted.
    box = grid.bounding_box()
    assert box is not None
    viewer.page.mouse.click(box["x"] + 22, box["y"] + 36 + 36 + 18)
    expect(viewer.page.get_by_role("heading", name="demo-live")).to_be_visible()


@pytest.mark.parametrize("path", ["/", f"/?job={RUNNING}", f"/tokens?job={RUNNING}", f"/routing?job={RUNNING}"])
def test_a_refused_token_is_one_message_and_heals_by_itself(viewer: Viewer, fake_api: FakeApi, path: str) -> None:
    viewer.open(path)
    fake_api.accepts = "another"
    message = viewer.page.get_by_text("The API refuses this dashboard's token.")
    expect(message).to_have_count(1)
    fake_api.accepts = "fake-token"
    expect(message).to_have_count(0)
    expect(viewer.page.locator("h2, h3").first).to_be_visible()


def test_an_api_that_is_down_is_one_message_and_heals_by_itself(viewer: Viewer, fake_api: FakeApi) -> None:
    viewer.open(f"/?job={RUNNING}")
    fake_api.close()
    message = viewer.page.get_by_text("The API does not answer.")
    try:
        expect(message).to_have_count(1, timeout=30_000)
        viewer.shot("unreachable-light")
    finally:
        fake_api.reopen()
    expect(message).to_have_count(0, timeout=30_000)
    expect(viewer.page.get_by_role("heading", name="demo-live")).to_be_visible()
