"""What gates let through: by position and step, budgets, silenced tokens, overlap."""

from __future__ import annotations

import streamlit as st

from api.schemas import Gates
from dashboard import data
from dashboard.components import charts, live, selection
from dashboard.components.figures import figures
from dashboard.components.run_header import chosen_run, recorded_steps
from dashboard.shaping import gates as shape
from dashboard.shaping import profiles
from dashboard.shaping.text import escape_markdown

REFRESH_S = 4.0
STEP_LIMIT = 100

job = chosen_run()


def view() -> None:
    """The whole page below the header."""
    steps = recorded_steps(job, ":material/filter_alt:")
    if not steps:
        return
    first = steps[-STEP_LIMIT:][0]
    everything = data.gates(job.id, None, first, steps[-1])
    names = [name.removeprefix("gate:") for name in everything.profile.fields if name.startswith("gate:")]
    if not names:
        none()
        return
    gate = choose_gate(names)
    found = everything if gate is None else data.gates(job.id, gate, first, steps[-1])
    settings = shape.asked(job).get(gate or "")
    metrics = data.metrics(job.id)
    for name, of in shape.asked(job).items():
        st.caption(escape_markdown(shape.described(name, of)))
    figures(shape.figures(found.summary, metrics, gate, settings))

    used = profiles.mean_scale(found.profile, signed=False, at_least=1.0)
    title = profiles.label("gate" if gate is None else f"gate:{gate}")
    left, right = st.columns([3, 2])
    with left:
        st.markdown(f"**By position and step** :gray[mean weight of {escape_markdown(title)}, every token of a step]")
        st.echarts_chart(
            profiles.heatmap(found.profile, used, theme=charts.theme()),
            height=400,
            key="gates_heatmap",
            alt=f"Mean weight of {title} by token position and training step",
        )
    with right:
        over = None if gate is None else shape.over_steps(metrics, gate, shape.budget(settings))
        if over is not None:
            st.markdown("**Tokens that speak** :gray[% of all tokens of a step]")
            st.echarts_chart(over, height=190, key="gates_share", alt=f"Share of tokens that {title} lets speak")
        if len(found.summary.gates) > 1:
            st.markdown("**Overlap of gates** :gray[of the tokens that one silences, the share that both do]")
            st.echarts_chart(
                shape.overlap(found.summary, theme=charts.theme()),
                height=220 if over is not None else 400,
                key="gates_overlap",
                alt="Overlap of every pair of gates",
            )
        elif over is None:
            st.caption("One gate alone: nothing to overlap with.")
    silenced(found)


def choose_gate(names: list[str]) -> str | None:
    """Which gate; None = the product of all."""
    wanted = selection.text("gate")
    options = ["", *names] if len(names) > 1 else names
    wanted = wanted if wanted in options else options[0]
    st.session_state["gates_gate"] = wanted
    st.pills(
        "Gate",
        options,
        format_func=lambda name: escape_markdown(profiles.label(f"gate:{name}" if name else "gate")),
        key="gates_gate",
        required=True,
        label_visibility="collapsed",
        on_change=lambda: selection.choose(gate=st.session_state["gates_gate"] or None),
    )
    return wanted or None


def silenced(found: Gates) -> None:
    """Which tokens, beside what a random gate of the same budget would do."""
    st.markdown("**Silenced most often** :gray[recorded tokens that speak at less than half of their voice]")
    if not found.summary.most_silenced:
        st.caption("None of the recorded tokens of these steps is silenced.")
        return
    st.dataframe(
        shape.silenced(found.summary),
        hide_index=True,
        height="content" if len(found.summary.most_silenced) < 9 else 360,
        key="gates_silenced",
        alt="Tokens that are silenced most often",
        column_config={
            "seen": st.column_config.NumberColumn("times seen"),
            "by chance": st.column_config.NumberColumn(
                "random control", format="%.1f", help="How often a random gate of the same budget would silence it."
            ),
            "share": st.column_config.ProgressColumn("silenced share", min_value=0.0, max_value=1.0, format="percent"),
            "lift": st.column_config.NumberColumn(
                "× random", format="%.2f", help="Above 1: the gate means this token; 1: no more than chance."
            ),
        },
    )
    read, recorded = found.steps_read, found.steps_recorded
    of = f"{read} of {recorded} recorded steps" if read < recorded else f"{recorded} recorded steps"
    st.caption(f"{found.summary.tokens:,} recorded tokens of {of}.")


def none() -> None:
    """A run without gates."""
    st.info(
        "This recipe has no gates: every token speaks as loudly as its credit. Recipes with gates are, for example, "
        "tip, ta-opd, eopd, selectkd, fire-opd and scope; any recipe takes some under method.gates.",
        icon=":material/filter_alt_off:",
    )
    st.page_link("app_pages/new_run.py", label="Start a run with gates", icon=":material/add:")


live.panel(view, every=live.tick(job, REFRESH_S))
