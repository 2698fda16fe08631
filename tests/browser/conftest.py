"""A headless Chromium, and a dashboard server over the fake service."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from dashboard.config import APP, streamlit_flags
from tests.dashboard.fake_api import TOKEN, FakeApi, World
from tests.ports import free_port

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_WINDOWS: list[tuple[BrowserContext, str]] = []
_PATIENCE_MS = 60_000  # a fresh tab loads its scripts anew, which takes a busy machine twenty seconds
expect.set_options(timeout=_PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no chromium on this machine (apt-get install chromium)"))


@dataclass
class Viewer:
    """A browser tab on a dashboard, and what went wrong in it."""

    page: Page
    base: str
    errors: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Open a path of the dashboard and wait until it has drawn a heading."""
        self.page.goto(self.base + path)
        self.page.locator("h2, h3, [data-testid=stAlert]").first.wait_for()

    def shot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        ARTIFACTS.mkdir(exist_ok=True)
        height = self.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        size = self.page.viewport_size
        assert size is not None
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], min(height, 3000))})
        self.page.wait_for_timeout(700)  # charts take a moment to grow into the new size
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")
        self.page.set_viewport_size(size)

    def listen(self, message: ConsoleMessage) -> None:
        """Collect console errors. On a deep link Streamlit first looks for its server below the page's path."""
        if message.type == "error" and "/_stcore/" not in (message.location or {}).get("url", ""):
            self.errors.append(message.text)


@contextlib.contextmanager
def dashboard_over(api_url: str, token: str, log: Path) -> Iterator[str]:
    """A dashboard server for that service; yields its address."""
    port = free_port()
    environment = {**os.environ, "OPD_API_URL": api_url, "OPD_API_TOKEN": token}
    command = [sys.executable, "-m", "streamlit", "run", str(APP), *streamlit_flags(), f"--server.port={port}"]
    with log.open("wb") as sink:
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
        try:
            base = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while not _answers(f"{base}/_stcore/health"):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield base
        finally:
            server.terminate()
            server.wait(20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium of this machine."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def fake_service() -> Iterator[FakeApi]:
    """The fake service, one for all tests: its address is in the dashboard's environment."""
    with FakeApi() as api:
        yield api


@pytest.fixture(scope="session")
def fake_dashboard(fake_service: FakeApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard over the fake service."""
    log = tmp_path_factory.mktemp("dashboard") / "streamlit.log"
    with dashboard_over(fake_service.url, TOKEN, log) as base:
        yield base
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def fake_api(fake_service: FakeApi) -> FakeApi:
    """The fake service with fresh records."""
    fake_service.world, fake_service.accepts = World(), TOKEN
    return fake_service


@contextlib.contextmanager
def tab(browser: Browser, base: str, *, theme: str, name: str) -> Iterator[Viewer]:
    """A fresh tab; keeps a picture when the test fails; fails on console errors and executed model text."""
    page = _window(browser, theme).new_page()
    page.set_default_timeout(_PATIENCE_MS)
    viewer = Viewer(page, base)
    page.on("console", viewer.listen)
    page.on("pageerror", lambda error: viewer.errors.append(str(error)))
    try:
        yield viewer
        assert page.evaluate("window.__xss") is None
        assert viewer.errors == []
    except BaseException:
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"failed-{name}.png")
        raise
    finally:
        page.close()


def _window(browser: Browser, theme: str) -> BrowserContext:
    """One window for all tabs of a theme: a new one would load and compile the dashboard's scripts again."""
    known = [window for window, its_theme in _WINDOWS if window.browser is browser and its_theme == theme]
    if not known:
        window = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=theme)
        _WINDOWS.append((window, theme))
        return window
    return known[0]


@pytest.fixture
def viewer(
    request: pytest.FixtureRequest, browser: Browser, fake_dashboard: str, fake_api: FakeApi
) -> Iterator[Viewer]:
    """A tab on the dashboard over the fake service; ``@pytest.mark.parametrize("viewer", ["dark"], indirect=True)``."""
    theme = getattr(request, "param", "light")
    with tab(browser, fake_dashboard, theme=theme, name=request.node.name) as one:
        yield one
