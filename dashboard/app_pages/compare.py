"""Two to eight runs: their curves on one axis, head to head with seeds as one row, and token by token."""

from __future__ import annotations

from typing import Any

import streamlit as st
from pandas import DataFrame
from pandas.io.formats.style import Styler

from api.schemas import Comparison
from dashboard import data
from dashboard.components import charts, comparison, live, selection
from dashboard.components.token_pairs import token_pairs
from dashboard.shaping import compared, head_to_head, pairs

LINE = st.column_config.TextColumn("", width=60)
MEDIUM, LARGE = (st.column_config.TextColumn(width=width) for width in ("medium", "large"))


def table(shown: DataFrame | Styler, key: str, alt: str, columns: dict[str, Any]) -> None:
    """A table of this page: no index, and words for people who cannot see it."""
    st.dataframe(shown, hide_index=True, key=key, alt=alt, column_config=columns)


def curves(found: Comparison, drawn: dict[str, compared.Look]) -> None:
    """One small chart per quantity, all on the same axis."""
    with st.grid(3, min_column_width=300):
        for curve in compared.CURVES:
            with st.container(border=True, key=f"compare_{curve.key}"):
                st.markdown(f"**{curve.title}** :gray[{curve.unit}]")
                if not any(compared.points(run, curve.key, share=curve.share) for run in found.runs):
                    st.caption("None of these runs recorded this against this axis.")
                    continue
                st.echarts_chart(
                    compared.option(curve, found, drawn),
                    height=210,
                    key=f"compare_chart_{curve.key}",
                    alt=compared.takeaway(curve, found, drawn),
                )


def tables(found: Comparison, drawn: dict[str, compared.Look]) -> None:
    """Outcome and price by arm, and what the arms differ in."""
    st.subheader("Head to head", anchor=False)
    st.markdown(compared.budget_sentence(found))
    colors = [drawn[arm.jobs[0]].color for arm in found.arms]
    arms = {"": LINE, "arm": MEDIUM}
    outcomes, prices = head_to_head.outcomes(found, drawn), head_to_head.prices(found, drawn)
    table(head_to_head.painted(outcomes, colors), "outcomes", "Accuracy by arm", arms)
    table(head_to_head.painted(prices, colors), "prices", "Tokens, compute and time by arm", arms)
    st.caption(
        "An arm is one spec under any number of seeds: mean, then smallest to largest, then the standard deviation of "
        "the sample: spread, not significance. The 95 % interval is a bootstrap over seeds and problems. Training "
        "time counts rollouts, teacher, update and telemetry; loading, evaluations and checkpoints are not in it."
    )
    st.subheader("Problem by problem", anchor=False)
    if found.duels:
        about = "Pairs of arms on the problems that both were examined on"
        table(head_to_head.duels(found), "duels", about, {"arm": MEDIUM})
        st.caption(
            "Runs of one seed begin with the same student and are examined on the same problems. Accuracy: the first "
            "arm's lead at the end. Wins: of the problems that exactly one of the two solves, the share that the first "
            "one does. In parentheses 95 % intervals by a bootstrap over seeds and problems, which takes two seeds; "
            "fewer than ten test nothing."
        )
    else:
        st.caption("Runs of two arms under one seed, both at their end, are compared problem by problem.")
    st.subheader("What differs", anchor=False)
    if found.differences:
        about = "Fields of the specs that are not the same in all arms"
        table(head_to_head.differences(found), "differences", about, {"field": LARGE})
    else:
        st.caption("Nothing but seeds and names: these runs are one arm.")


def view(jobs: list[str], axis: str) -> None:
    """Everything that moves while a run runs."""
    found = data.compare(tuple(jobs), axis)
    drawn = compared.looks(found, charts.theme())
    runs = head_to_head.painted(head_to_head.runs(found, drawn), [drawn[run.id].color for run in found.runs])
    table(runs, "compared_runs", "The compared runs and how they are drawn", {"": LINE, "run": MEDIUM})
    curves(found, drawn)
    tables(found, drawn)


def page() -> None:
    """The choice, the panel that refreshes itself, and the tokens below it."""
    comparison.restore()
    st.header("Compare", anchor=False)
    jobs = comparison.pick_runs()
    if len(jobs) < 2:
        st.info("Choose at least two runs: seeds of one spec become one row.", icon=":material/compare_arrows:")
        return
    axis = comparison.pick_axis()
    running = [job for job in map(data.job, jobs) if not job.terminal]
    live.panel(lambda: view(jobs, axis), every=live.tick(running[0], live.SLOW_TICK_S) if running else None)
    st.subheader("The same problem, token by token", anchor=False)
    live.panel(lambda: token_pairs(jobs), every=None)
    st.page_link(
        "app_pages/probe.py",
        label="A prompt of yours under both",
        icon=":material/science:",
        query_params=pairs.to_probe(jobs, selection.text("left"), selection.text("right")),
    )


page()
