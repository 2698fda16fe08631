"""The browser door: ``streamlit run dashboard/app.py`` with OPD_API_URL and OPD_API_TOKEN in the environment."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.components import live

st.set_page_config(
    page_title="opd · on-policy distillation", page_icon=str(Path(__file__).with_name("icon.svg")), layout="wide"
)

runs = st.Page(
    "app_pages/runs.py",
    title="Runs",
    icon=":material/list:",
    help="All runs with status, progress and accuracy, and the form that starts a new one.",
    default=True,
)
overview = st.Page(
    "app_pages/overview.py",
    title="Overview",
    icon=":material/monitoring:",
    help="One run: curves, budgets, events, and cancel.",
)
tokens = st.Page(
    "app_pages/tokens.py",
    title="Tokens",
    icon=":material/format_color_text:",
    help="What the feedback said to every token of a rollout, and what the update made of it.",
)
routing = st.Page(
    "app_pages/routing.py",
    title="Routing",
    icon=":material/alt_route:",
    help="Where the probability of suppressed tokens went: predicted and realised.",
)
compare = st.Page(
    "app_pages/compare.py",
    title="Compare",
    icon=":material/compare_arrows:",
    help="Two to eight runs: curves on one axis, head to head at an equal budget, and token by token.",
)

page = st.navigation([runs, overview, tokens, routing, compare], position="top")
if page == runs and "job" in st.query_params:
    # /?job=ID is the short link of a run.
    st.switch_page(overview, query_params=st.query_params.to_dict())
live.guarded(page.run)
