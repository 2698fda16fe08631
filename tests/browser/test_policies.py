"""Content security policies that hold: pages under them load everything they need, and nothing from elsewhere."""

import http.client
import threading
import time
import urllib.parse
import urllib.request

import pytest
import uvicorn
from playwright.sync_api import expect

from api.main import create_app
from api.serve import _Server
from opd_core.runs.settings import Settings
from tests.ports import free_port


@pytest.fixture
def service(tmp_path):
    """A real service; its address."""
    port = free_port()
    app = create_app(Settings(home=tmp_path, api_token="a-test-token", reconcile=False))
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"), app)
    server.install_signal_handlers = lambda: None
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.handle_exit(15, None)
    thread.join(10)


def test_the_page_of_the_api_draws_itself_without_another_host(browser, service):
    page, errors, asked = browser.new_page(), [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{service}/docs")
    expect(page.locator(".opblock")).not_to_have_count(0)
    page.locator(".opblock-summary").first.click()
    page.get_by_role("button", name="Try it out").click()
    assert errors == []
    assert all(url.startswith(service) for url in asked)
    page.close()


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 101), ("localhost:1", 101), ("evil.example", 403)])
def test_a_name_of_another_site_that_points_here_gets_no_session(fake_dashboard, host, status):
    address = urllib.parse.urlsplit(fake_dashboard)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    headers = {"Host": host, "Origin": f"http://{host}", "Connection": "Upgrade", "Upgrade": "websocket"}
    headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    connection.request("GET", "/_stcore/stream", headers=headers)
    assert connection.getresponse().status == status
    connection.close()


def test_the_dashboard_may_not_be_framed_and_asks_no_other_host(fake_dashboard):
    for path in ("/", "/_stcore/health", "/tokens"):
        with urllib.request.urlopen(fake_dashboard + path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in policy
            assert "default-src 'self'" in policy
            assert "unsafe-eval'" not in policy.replace("wasm-unsafe-eval", "")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
