"""What a spec may say."""

from __future__ import annotations

import streamlit as st

from api.schemas import Recipe, SpecSchema
from dashboard.data.connection import SETTLED_S, call


@st.cache_data(ttl=SETTLED_S, max_entries=1, show_spinner=False)
def recipes() -> list[Recipe]:
    """All recipes."""
    return list(call(lambda api: api.recipes()).data)


@st.cache_data(ttl=SETTLED_S, max_entries=1, show_spinner=False)
def schema() -> SpecSchema:
    """The fields of a job spec."""
    return call(lambda api: api.schema())


@st.cache_data(ttl=60.0, max_entries=1, show_spinner=False)
def models() -> list[str]:
    """Names of the models that can be used without a download."""
    return [model.id for model in call(lambda api: api.models()).data]


@st.cache_data(ttl=60.0, max_entries=1, show_spinner=False)
def tasks() -> list[str]:
    """Names of the built-in tasks."""
    return [task.name for task in call(lambda api: api.tasks()).data]
