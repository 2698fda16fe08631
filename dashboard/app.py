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
    help="All runs with status, progress, accuracy and budget.",
    default=True,
)
new_run = st.Page(
    "app_pages/new_run.py",
    title="New run",
    icon=":material/add:",
    help="The gallery of recipes, and the form that starts a run.",
)
overview = st.Page(
    "app_pages/overview.py",
    title="Overview",
    icon=":material/monitoring:",
    help="One run: curves, budgets, events, and what can be done with it.",
)
tokens = st.Page(
    "app_pages/tokens.py",
    title="Tokens",
    icon=":material/format_color_text:",
    help="What the feedback said to every token of a rollout, and what the update made of it.",
)
returns = st.Page(
    "app_pages/returns.py",
    title="Returns",
    icon=":material/stacked_line_chart:",
    help="Log-ratios, returns and advantages by position and step, how they are spread, and the critic.",
)
gates = st.Page(
    "app_pages/gates.py",
    title="Gates",
    icon=":material/filter_alt:",
    help="What gates let through, which tokens they silence, and what chance would do at their budget.",
)
routing = st.Page(
    "app_pages/routing.py",
    title="Routing",
    icon=":material/alt_route:",
    help="Where the probability of suppressed tokens went: predicted and realised.",
)
what_if = st.Page(
    "app_pages/what_if.py",
    title="What if",
    icon=":material/fork_right:",
    help="A recorded step planned again under another method, beside what it was trained with.",
)
probe = st.Page(
    "app_pages/probe.py",
    title="Probe",
    icon=":material/science:",
    help="What the student does with a prompt of yours, and what teacher and method make of it.",
)
compare = st.Page(
    "app_pages/compare.py",
    title="Compare",
    icon=":material/compare_arrows:",
    help="Two to eight runs: curves on one axis, head to head at an equal budget, and token by token.",
)

fleet = st.Page(
    "app_pages/fleet.py",
    title="Fleet",
    icon=":material/dns:",
    help="Workers and what runs where, queues and what waits, starts that ended badly.",
)

page = st.navigation(
    [runs, new_run, overview, tokens, returns, gates, routing, what_if, probe, compare, fleet], position="top"
)
if page == runs and "job" in st.query_params:
    # /?job=ID is the short link of a run.
    st.switch_page(overview, query_params=st.query_params.to_dict())
live.guarded(page.run)
