"""The one connection to the API: how long an answer may be reused, and what is wrong when there is none."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Literal, TypeVar

import httpx
import streamlit as st

from api.client import ApiError, Client

T = TypeVar("T")

# What changes while a run runs is reused just long enough that the panels of one tick, and several viewers of
# the same run, share one request. A recorded step changes only when a later attempt repeats it.
LIVE_S = 0.8
SUMMARY_S = 3.0  # what is computed from many steps
RECORDS_S = 30.0
SETTLED_S = 300.0

Kind = Literal["unreachable", "unauthorized", "missing", "refused"]


class Problem(Exception):
    """The API could not or would not answer. ``detail`` is for people; ``param`` names the field of a bad spec."""

    def __init__(self, kind: Kind, detail: str, *, param: str | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.param = param

    @property
    def is_outage(self) -> bool:
        """Nothing works until it is over, whatever the page."""
        return self.kind in ("unreachable", "unauthorized")


@functools.lru_cache(maxsize=1)
def _client() -> Client:
    return Client()


def client() -> Client:
    """The one client of this process (address and token from the environment). Tests replace this function."""
    return _client()


def call(question: Callable[[Client], T]) -> T:
    """Ask the API. Raises Problem, whatever went wrong."""
    try:
        return question(client())
    except ApiError as error:
        detail = error.detail or error.title
        if error.status in (401, 403):
            _client.cache_clear()  # the token file may hold a new token by the next try
            raise Problem("unauthorized", detail) from error
        if error.status == 404:
            raise Problem("missing", detail) from error
        raise Problem("refused", detail, param=error.param) from error
    except httpx.HTTPError as error:
        _client.cache_clear()
        raise Problem("unreachable", str(error) or type(error).__name__) from error


def checked(job_id: str) -> str:
    """The id, if it can be one. Raises Problem."""
    # The id comes from the address bar and becomes a part of a path.
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", job_id):
        raise Problem("missing", "This is not the id of a run.")
    return job_id


def forget() -> None:
    """Drop every cached answer: after a write, and when the connection was lost."""
    st.cache_data.clear()


def check() -> None:
    """Ask the API anything, uncached. Raises Problem while it cannot be used."""
    call(lambda api: api.ready())  # fails at once where the other calls try again first
    call(lambda api: api.jobs(limit=1))


def api_url() -> str:
    """The service's address as this process reaches it."""
    return client().url
