"""Questions to a run."""

from __future__ import annotations

from typing import Any

import streamlit as st

from api.schemas import Question
from dashboard.data.connection import LIVE_S, call, checked


def replan(job_id: str, step: int, n: int, recipe: str | None, method: dict[str, Any]) -> Question:
    """Ask what a recorded sequence would have been under another method."""
    return call(lambda api: api.replan(checked(job_id), step, recipe=recipe, method=method, sequences=[n]))


def probe(job_id: str, prompt: str, *, temperature: float, seed: int, checkpoint: str | None) -> Question:
    """Ask what the run's student does with a prompt."""
    return call(
        lambda api: api.probe(checked(job_id), prompt, temperature=temperature, seed=seed, checkpoint=checkpoint)
    )


@st.cache_data(ttl=LIVE_S, max_entries=50, show_spinner=False)
def question(job_id: str, question_id: str) -> Question:
    """A question, with its result once it is answered."""
    return call(lambda api: api.question(checked(job_id), checked(question_id)))
