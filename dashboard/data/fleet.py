"""Who works, and what waits."""

from __future__ import annotations

import streamlit as st

from api.schemas import Attempt, Queue, Worker
from dashboard.data.connection import LIVE_S, call


@st.cache_data(ttl=LIVE_S, max_entries=1, show_spinner=False)
def workers() -> list[Worker]:
    """All known workers."""
    return list(call(lambda api: api.workers()).data)


@st.cache_data(ttl=LIVE_S, max_entries=1, show_spinner=False)
def queues() -> list[Queue]:
    """Queues with what waits in them."""
    return list(call(lambda api: api.queues()).data)


@st.cache_data(ttl=5.0, max_entries=1, show_spinner=False)
def failed_attempts() -> list[Attempt]:
    """Recent starts of any run that ended badly, newest first."""
    return list(call(lambda api: api.recent_attempts(limit=20, failed=True)).data)
