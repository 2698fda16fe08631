"""Pages over a really running service: submit from the form, watch it train, see it end; ask it what if, probe it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from api.client import Client
from api.schemas import Probe
from dashboard.shaping.text import visible
from tests.browser.conftest import Viewer, dashboard_over, tab
from tests.cli.running import running_service
from tests.tiny import TinyWorld
from tests.waiting import wait_until

pytestmark = pytest.mark.service

# By section of the form: role, label, value.
SETTINGS = {
    "Task": [("textbox", "prompt column", "question"), ("textbox", "answer column", "answer")],
    "Rollout": [("spinbutton", "prompts per step", "8"), ("spinbutton", "max new tokens", "12")],
    "Telemetry": [("spinbutton", "sequences per step", "3"), ("spinbutton", "probe states", "8")],
}
STEPS = 500  # on a fast machine, too, it still trains when the last page that follows it is opened
ANSWER_MS = 240_000  # two models are loaded for an answer, beside whatever else the machine does


@dataclass(frozen=True)
class Watched:
    """A service with its dashboard."""

    base: str
    client: Client


@pytest.fixture(scope="module")
def running(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A service that may load the tiny models, and a dashboard over it; one for all tests of this file."""
    home = tmp_path_factory.mktemp("home")
    with running_service(home, tiny_world) as up, dashboard_over(up.api_url, up.token, home / "dashboard.log") as base:
        yield Watched(base, up.client)
    assert "Traceback" not in (home / "dashboard.log").read_text()


@pytest.fixture
def service_viewer(request: pytest.FixtureRequest, running: Watched, browser: Browser) -> Iterator[Viewer]:
    """A tab on that dashboard."""
    with tab(browser, running.base, theme="light", name=request.node.name) as viewer:
        viewer.page.set_default_timeout(ANSWER_MS)
        yield viewer


@pytest.fixture(scope="module")
def finished(running: Watched, tiny_world) -> list[str]:
    """Two short runs that are over: one routes, one goes the direct way."""
    made = []
    for recipe in ("cr-opd", "forward-kl"):
        spec = {
            "name": f"short {recipe}",
            "student": {"model": str(tiny_world.student)},
            "teacher": {"model": str(tiny_world.teacher)},
            "task": {
                "dataset": str(tiny_world.problems),
                "prompt_column": "question",
                "answer_column": "answer",
                "eval_examples": 16,
            },
            "recipe": recipe,
            "rollout": {"prompts_per_step": 6, "max_new_tokens": 8},
            "schedule": {"steps": 4, "evaluate_every": 0, "checkpoint_every": 2},
            "telemetry": {"sequences_per_step": 3, "probe_states": 6},
        }
        made.append(running.client.submit(spec).id)
    for job_id in made:
        assert running.client.wait(job_id, timeout_s=240).status == "succeeded"
    return made


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


# First: it begins with a service that has no runs.
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
    expect(page.get_by_text(f"Did all {STEPS} steps")).to_be_visible(timeout=300_000)
    expect(page.get_by_role("heading", name="Results")).to_be_visible()
    expect(page.get_by_role("button", name="report.json")).to_be_visible()
    page.wait_for_timeout(1500)
    viewer.shot("service-finished")


def strip_texts(page: Page, key: str, count: int) -> list[str]:
    """What the tokens of a strip say, once it is drawn; each is one piece of text and no element."""
    tokens = page.locator(f".st-key-{key} .token")
    expect(tokens).to_have_count(count, timeout=ANSWER_MS)
    assert page.locator(f".st-key-{key} .token *").count() == 0
    return tokens.all_text_contents()


def question_of(page: Page, key: str) -> str:
    """The question that the address names."""
    page.wait_for_url(re.compile(rf"[?&]{key}=\w+"))
    return parse_qs(urlsplit(page.url).query)[key][0]


@pytest.mark.long  # tests/integration/test_questions asks the same without a browser
def test_ask_what_if_and_see_both_plans(service_viewer: Viewer, running: Watched, finished: list[str]) -> None:
    viewer, page, job_id = service_viewer, service_viewer.page, finished[0]
    viewer.open(f"/what_if?job={job_id}&step=2&seq=0")
    page.get_by_role("textbox", name="Changes to it").fill("routing: {kind: plain}")
    page.get_by_role("textbox", name="Changes to it").press("Control+Enter")
    page.get_by_role("button", name="Plan again").click()
    asked = question_of(page, "whatif")
    recorded = running.client.sequence(job_id, 2, 0)
    expected = [visible(token.text) for token in recorded.tokens]
    for number in range(3):
        assert strip_texts(page, f"whatif_strip_{number}", len(expected)) == expected
    expect(page.get_by_role("heading", name="Step 2, sequence 0: cr-opd, changed")).to_be_visible()
    expect(page.get_by_test_id("stEChartsChart")).to_have_count(1)
    assert running.client.question(job_id, asked).status == "answered"
    viewer.shot("service-what-if")


@pytest.mark.long
def test_probe_two_students_with_a_hostile_prompt(
    service_viewer: Viewer, running: Watched, finished: list[str]
) -> None:
    viewer, page = service_viewer, service_viewer.page
    viewer.open(f"/compare?jobs={','.join(finished)}")
    page.get_by_role("link", name="A prompt of yours under both").click()
    page.wait_for_url(re.compile(rf"/probe\?.*against={finished[1]}"))
    prompt = "3 + <img src=x onerror='window.__xss=1'>"
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.get_by_role("textbox", name="Prompt").press("Control+Enter")
    page.get_by_role("button", name="Let both students write").click()
    for job_id, key, side in zip(finished, ("probe", "probe2"), ("left", "right"), strict=True):
        asked = question_of(page, key)
        answer = page.get_by_role("heading", name=f"short {running.client.job(job_id).recipe}: what")
        expect(answer).to_be_visible(timeout=ANSWER_MS)
        found = running.client.question(job_id, asked).result
        assert isinstance(found, Probe)
        assert found.sequence.prompt == prompt
        expected = [visible(token.text) for token in found.sequence.tokens]
        assert strip_texts(page, f"probe_strip_{side}", len(expected)) == expected
    expect(page.get_by_text(prompt).first).to_be_visible()
    expect(page.locator("img[src='x']")).to_have_count(0)
    viewer.shot("service-probe")
