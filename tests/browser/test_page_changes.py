"""Leaving a page whose panels refresh themselves. In a real browser."""

from __future__ import annotations

from playwright.sync_api import WebSocketRoute, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.browser.conftest import Viewer


class Late:
    """Between browser and server: the newest refresh of a panel arrives once more when its page has been left."""

    def __init__(self) -> None:
        self.again = 0
        self.refresh: tuple[str, bytes] | None = None

    def __call__(self, browser: WebSocketRoute) -> None:
        server = browser.connect_to_server()

        def asked(message: str | bytes) -> None:
            assert isinstance(message, bytes)
            rerun = BackMsg.FromString(message).rerun_script
            if rerun.is_auto_rerun:
                self.refresh = rerun.page_script_hash, message
            server.send(message)

        def told(message: str | bytes) -> None:
            assert isinstance(message, bytes)
            started = ForwardMsg.FromString(message).new_session.page_script_hash
            if self.refresh is not None and started not in ("", self.refresh[0]):
                server.send(self.refresh[1])
                self.again, self.refresh = self.again + 1, None
            browser.send(message)

        browser.on_message(asked)
        server.on_message(told)


def test_a_refresh_that_comes_late_does_not_blank_the_next_page(viewer: Viewer) -> None:
    """A click on a link is the browser's own change of page: it stops its refreshes. One on a button is not."""
    page, late = viewer.page, Late()
    page.route_web_socket("**/_stcore/stream", late)
    viewer.open("/")
    while late.refresh is None:
        page.wait_for_timeout(100)
    page.get_by_role("button", name="New run", exact=True).click()
    heading = page.get_by_role("heading", name="Log-ratio route")
    expect(heading).to_be_visible()
    assert late.again == 1
    page.wait_for_timeout(1500)  # whatever the server makes of it has arrived
    expect(heading).to_be_visible(timeout=1)
