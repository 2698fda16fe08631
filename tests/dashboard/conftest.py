"""Pages run in-process against the fake service, through the real client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboard.fake_api import TOKEN, FakeApi

APP = str(Path(__file__).parents[2] / "dashboard" / "app.py")


@pytest.fixture
def fake_api() -> Iterator[FakeApi]:
    """A running fake service."""
    with FakeApi() as api:
        yield api


@pytest.fixture
def app(fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch):
    """A factory: the app opened at a page with query parameters, not yet run twice."""
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    from api.client import Client
    from dashboard.data import connection

    st.cache_data.clear()
    monkeypatch.setattr("api.client.transport.FIRST_PAUSE_S", 0.0)
    client = Client(fake_api.url, TOKEN)
    monkeypatch.setattr(connection, "client", lambda: client)

    def open_at(page: str = "runs", **query: object) -> AppTest:
        test = AppTest.from_file(APP, default_timeout=20)
        if page != "runs":
            test.run()
            test.switch_page(f"app_pages/{page}.py")
        for key, value in query.items():
            test.query_params[key] = str(value)
        return test.run()

    yield open_at
    client.close()
    st.cache_data.clear()
