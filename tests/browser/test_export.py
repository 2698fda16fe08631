"""The exported file in a real browser, opened from disk without a network: text stays text, nothing is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from api.export.collect import collect
from api.export.page import render
from api.services import Services
from opd_core.recipes import resolve
from opd_core.runs import records
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec
from tests.browser.conftest import ARTIFACTS
from tests.runs.test_records import row

HOSTILE = "</script><img src=x onerror=window.__xss=1>"
VOCABULARY = ["one", HOSTILE, "\u202eevil", "a\nb", " 7", "\u200b"]
LOST = "\ud800x"  # a byte-level token: JSON can say it, UTF-8 cannot
INTRUDER = """() => {
    const script = document.createElement("script");
    script.textContent = "window.__in = 1";
    const picture = document.createElement("img");
    picture.setAttribute("onerror", "window.__in = 2");
    picture.src = "https://example.invalid/x";
    document.body.append(script, picture);
}"""
SPEC = {
    "name": "hostile",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
    "recipe": "gae-cr-opd",
}


def record(step: int, n: int) -> records.Row:
    """Six tokens, one of each text; the second one is suppressed, probed and routed."""
    ratios = [0.5, -2.0, -0.25, 1.0, 0.0, -4.0]
    found = row(step, n, length=6) | {"token_ids": list(range(6)), "log_ratio": ratios, "prompt": f"How? {HOSTILE}"}
    found |= {"completion": HOSTILE + "\u202e", "answer": HOSTILE, "correct": n == 0}
    found |= {"probe_ids": [None, [1, 2]] + [None] * 4, "probe_predicted": [None, [-0.25, 0.125]] + [None] * 4}
    found |= {"probe_realised": [None, [-0.125, 0.25]] + [None] * 4}
    return found | {"route_ids": [[], [2, 4], [], [], [], []], "route_weights": [[], [0.5, 0.25], [], [], [], []]}


@pytest.fixture
def hostile_run(tmp_path: Path) -> dict[str, Any]:
    """What is exported of a run whose every text is hostile."""
    services = Services(Settings(home=tmp_path / "home", redis_url=""))
    spec = JobSpec.model_validate(SPEC)
    store = services.store
    job = store.create_job(spec, resolve(spec), [HOSTILE])
    store.claim(job.id, HOSTILE, 30)
    services.files(job.id).write_json("vocabulary.json", VOCABULARY)
    records.write_part(services.files(job.id), [record(step, n) for step in (1, 2, 3) for n in (0, 1)], 1, 3, 1)
    for step in range(1, 21):
        values = {"loss": 1 / step, f"gate_{HOSTILE}_share": 0.5, "size_temporal": 0.1 * step}
        store.add_metrics(job.id, 1, step, values | ({"accuracy": step / 25} if step % 5 == 0 else {}))
    store.set_accuracy(job.id, 1, {"before": 0.1, "after": 0.8, "teacher": 0.9, "gap_recovered": 0.875})
    store.add_event(job.id, "warning", "health", HOSTILE, attempt=1)
    report = {
        "budget": {"student_tokens": 12_345, "flops": 1e12, "wall_s": 75.0, "wall_s_by_phase": {"update": 75.0}},
        "checklist": {"data": {HOSTILE: HOSTILE, "gates": [{"kind": HOSTILE}], "none": None}},
        "versions": {"python": HOSTILE},
    }
    store.finish(job.id, 1, "succeeded", report=report)
    finished = store.get_job(job.id)
    assert finished is not None
    found = collect(finished, services)
    services.close()
    # No spec has such a name, and what is stored has no lone surrogates: the page must not depend on either.
    found["job"]["name"] = HOSTILE
    found["records"]["texts"][0] = LOST
    return found


@dataclass
class Reader:
    """A tab on an exported file, and all that it asked for or complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def token(self, place: int):
        """A token of the strip."""
        return self.page.locator(".strip .token").nth(place)


@pytest.fixture(params=["light", "dark"])
def read(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> Iterator[Callable[[dict], Reader]]:
    """Open what was collected as a file without a network; at the end nothing may have been asked for or run."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=request.param)
    context.set_offline(True)
    reader = Reader(context.new_page())
    reader.page.on("request", lambda one: reader.requests.append(one.url))
    reader.page.on("console", lambda one: reader.complaints.append(one.text))
    reader.page.on("pageerror", lambda one: reader.complaints.append(str(one)))
    reader.page.on("dialog", lambda one: reader.complaints.append(one.message))
    file = tmp_path / "run.html"

    def open_file(data: dict) -> Reader:
        file.write_bytes(render(data))
        reader.page.goto(file.as_uri())
        expect(reader.page.locator("h1")).to_be_visible()
        return reader

    yield open_file
    assert reader.requests == [file.as_uri()]
    assert reader.complaints == []
    assert reader.page.evaluate("window.__xss") is None
    assert reader.page.locator("img").count() == 0
    ARTIFACTS.mkdir(exist_ok=True)
    reader.page.screenshot(path=ARTIFACTS / f"export-{request.param}.png", full_page=True)
    context.close()


def test_every_hostile_text_is_shown_as_text(read, hostile_run) -> None:
    reader = read(hostile_run)
    page = reader.page
    expect(page.locator("h1")).to_contain_text(HOSTILE)
    assert page.title() == f"{HOSTILE} · opd"
    shown = [reader.token(place).inner_text() for place in range(6)]
    assert shown == ["‹U+D800›x", HOSTILE.replace(" ", "·"), "‹U+202E›evil", "a↵b", "·7", "‹U+200B›"]
    expect(page.locator(".warnings li")).to_have_text([HOSTILE, HOSTILE])  # a warning and a finding
    expect(page.locator("pre", has_text="How?").first).to_contain_text(HOSTILE)
    expect(page.locator(".checklist")).to_contain_text(HOSTILE)
    for summary in page.locator("summary").all():
        summary.click()
    expect(page.locator("details", has_text="Events")).to_contain_text(HOSTILE)
    expect(page.locator("details", has_text="Versions").last).to_contain_text(HOSTILE)


def test_a_token_is_picked_with_mouse_and_keys(read, hostile_run) -> None:
    reader = read(hostile_run)
    page, detail = reader.page, reader.page.locator(".detail")
    reader.token(1).click()
    expect(detail.get_by_role("heading", name="Token 1", exact=True)).to_be_visible()
    expect(detail).to_contain_text("−2.000")
    expect(detail.get_by_role("heading", name="Planned route")).to_be_visible()
    expect(detail.locator("tr", has_text="‹U+202E›evil").last).to_contain_text("+0.25000")
    background = reader.token(1).evaluate("e => getComputedStyle(e).backgroundColor")
    assert background != reader.token(0).evaluate("e => getComputedStyle(e).backgroundColor")
    page.locator(".strip").press("End")
    expect(reader.token(5)).to_have_attribute("aria-selected", "true")
    page.locator(".strip").press("ArrowLeft")
    expect(detail.get_by_role("heading", name="Token 4", exact=True)).to_be_visible()


def test_step_sequence_and_colour_are_chosen(read, hostile_run) -> None:
    reader = read(hostile_run)
    page = reader.page
    page.get_by_label("Step", exact=True).select_option("1")
    page.get_by_label("Sequence", exact=True).select_option("1")
    expect(page.get_by_label("Sequence", exact=True)).to_have_value("1")
    labels = page.get_by_label("Colour", exact=True).locator("option").all_inner_texts()
    assert {"log-ratio r", "value V", "gate window", "part baseline"} <= set(labels)
    page.get_by_label("Colour", exact=True).select_option("gates:window")
    expect(page.locator(".strip")).to_have_attribute("aria-label", "Completion, coloured by gate window")


def test_curves_and_heatmaps_are_read_by_pointing(read, hostile_run) -> None:
    page = read(hostile_run).page
    accuracy = page.locator(".chart", has_text="Accuracy")
    accuracy.locator("svg").hover(position={"x": 5, "y": 60})
    expect(accuracy.locator("figcaption")).to_have_text("step 5: student 20 %")
    expect(accuracy.locator("text", has_text="teacher")).to_be_visible()
    page.locator(".map", has_text="Realised").locator("tbody td").first.hover()
    expect(page.locator(".readout")).to_contain_text(re.compile(r"Realised by the network: .* → .*: -?0\.\d+"))


def test_a_run_that_recorded_little_still_opens(read, hostile_run) -> None:
    bare = json.loads(json.dumps(hostile_run))
    bare |= {"recipe": None, "routing": None, "checklist": None, "self_check": None, "versions": {}, "attempts": []}
    bare |= {"records": {"steps": [], "texts": {}, "left_out": []}, "metrics": {"steps": [], "series": {}}}
    bare |= {"budget": {"student_tokens": None}, "health": []}
    bare["job"] |= {"accuracy": {"before": None, "latest": None, "after": None, "teacher": None}, "warnings": []}
    page = read(bare).page
    for sentence in ("recorded no metrics", "recorded no tokens", "No state was probed", "not in the version"):
        expect(page.get_by_text(sentence)).to_be_visible()


def test_no_other_script_runs_in_the_file(browser: Browser, hostile_run, tmp_path: Path) -> None:
    """The policy in the page: a script that got in by whatever way is not run, and nothing can be fetched."""
    file = tmp_path / "run.html"
    file.write_bytes(render(hostile_run))
    page = browser.new_page()
    page.goto(file.as_uri())
    page.evaluate(INTRUDER)
    page.wait_for_timeout(300)
    assert page.evaluate("window.__in") is None
    page.close()
