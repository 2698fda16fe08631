"""Where the probability of suppressed tokens went: what the plan predicted and what the network did."""

from __future__ import annotations

import streamlit as st

from dashboard import data
from dashboard.components import charts, live, selection
from dashboard.components.run_header import chosen_run, status_badge
from dashboard.shaping import routing as shape

REFRESH_S = 3.0

job = chosen_run()
running = not job.terminal


def view() -> None:
    """The whole page below the header."""
    now = live.refreshed(job)
    steps = data.steps(job.id)
    if not steps:
        status_badge(now)
        st.info(
            "No records yet: the first step is on its way." if running else "This run recorded no tokens.",
            icon=":material/alt_route:",
        )
        return
    first, last = choose_range(steps)
    heatmap = data.routing(job.id, first, last, shape.ROW_LIMIT, shape.COLUMN_LIMIT)
    explain(first, last, heatmap.states)
    if not heatmap.rows:
        st.info(
            "No suppressed token was probed in these steps. Choose a wider range, or raise telemetry.probe_states.",
            icon=":material/alt_route:",
        )
        return
    used = shape.heatmap_scale(heatmap)
    for column, which, title in zip(
        st.columns(2), ("predicted", "realised"), ("Predicted by the plan", "Realised by the network"), strict=True
    ):
        with column:
            st.markdown(f"**{title}**")
            st.echarts_chart(
                shape.option(heatmap, which, used, theme=charts.theme()),
                height=170 + 22 * len(heatmap.rows),
                key=f"routing_{which}",
                alt=f"{title}: mean change of probability of {len(heatmap.columns)} destination tokens for "
                f"{len(heatmap.rows)} suppressed tokens, steps {first} to {last}",
            )
    cosine = shape.agreement(heatmap)
    agree = "" if cosine is None else f" Cosine between the two: {cosine:.2f}."
    st.caption(
        f"Both share one scale, ±{used.limit:.2g}, centred at 0: red lost probability, blue gained."
        f" {used.clamped} of the cells lie beyond it and are clamped.{agree}"
    )
    st.markdown("**Largest moves**")
    number = st.column_config.NumberColumn(format="%+.6f")
    st.dataframe(
        shape.moves(heatmap),
        hide_index=True,
        height=320,
        key="moves",
        alt="Largest realised changes of probability",
        column_config={
            "seen": st.column_config.NumberColumn("times seen"),
            "predicted": number,
            "realised": number,
        },
    )


def choose_range(steps: list[int]) -> tuple[int, int]:
    """Which steps are summed up; the newest ones until someone chooses."""
    low, high = selection.number("from"), selection.number("to")
    newest = steps[-shape.STEP_LIMIT :][0]
    first = newest if low is None else min(steps, key=lambda step: abs(step - low))
    last = steps[-1] if high is None else min(steps, key=lambda step: abs(step - high))
    first, last = min(first, last), max(first, last)
    if len(steps) == 1:
        st.caption(f"Step {steps[0]}")
        return first, last
    st.session_state["routing_range"] = (first, last)

    def changed() -> None:
        begin, end = st.session_state["routing_range"]
        # An end that was left where it was keeps moving with the run.
        selection.choose(**{"from": None if begin == newest else begin, "to": None if end == steps[-1] else end})

    st.select_slider("Steps", steps, value=(first, last), key="routing_range", on_change=changed)
    return first, last


def explain(first: int, last: int, states: int) -> None:
    """What is shown, in words."""
    st.markdown(
        f"When the teacher likes a sampled token less than the student does, the update takes probability away from "
        f"it. **Rows** are those suppressed tokens, **columns** the tokens whose probability changed with it; the "
        f"colour is the mean change over **{states} probed states** of steps {first} to {last}."
    )
    st.caption(
        "The prediction is first order and looks at one state alone. The network shares its parameters between all "
        "states, so what it really did also carries the updates of the others: expect the two to differ, and read "
        "the difference as interference."
    )


live.panel(view, every=live.tick(job, REFRESH_S))
