"""Where the probability of suppressed tokens went: what the plan sent and predicted, and what the network did."""

from __future__ import annotations

import streamlit as st

from api.schemas import Heatmap, RouteBalance
from dashboard import data
from dashboard.components import charts, live, selection
from dashboard.components.figures import figures
from dashboard.components.run_header import chosen_run, recorded_steps
from dashboard.shaping import routing as shape
from dashboard.shaping.text import escape_markdown, visible

REFRESH_S = 3.0

job = chosen_run()
running = not job.terminal


def view() -> None:
    """The whole page below the header."""
    steps = recorded_steps(job, ":material/alt_route:")
    if not steps:
        return
    first, last = choose_range(steps)
    heatmap = data.routing(job.id, first, last, shape.ROW_LIMIT, shape.COLUMN_LIMIT)
    explain(first, last, heatmap.states)
    balance(heatmap.balance)
    landing(first, last)
    if not heatmap.rows:
        st.info(
            "No suppressed token was probed in these steps. Choose a wider range, or raise telemetry.probe_states.",
            icon=":material/alt_route:",
        )
        return
    source = choose_source(heatmap)
    shown = heatmap if source is None else shape.narrowed(heatmap, source)
    heatmaps(shown, choose_maps(heatmap), first=first, last=last)
    if source is not None:
        places(source, first, last)
    st.markdown("**Largest moves**")
    number = st.column_config.NumberColumn(format="%+.6f")
    st.dataframe(
        shape.moves(shown),
        hide_index=True,
        height=320,
        key="moves",
        alt="Largest realised changes of probability",
        column_config={
            "seen": st.column_config.NumberColumn("times seen"),
            "sent": st.column_config.NumberColumn("sent, nats", format="%.4f"),
            "predicted": number,
            "realised": number,
        },
    )


def choose_source(heatmap: Heatmap) -> int | None:
    """One suppressed token; None = all of them."""
    known = {row.id: row for row in heatmap.rows}
    wanted = selection.number("source")
    st.session_state["routing_source"] = wanted if wanted in known else None
    st.selectbox(
        "Suppressed token",
        list(known),
        index=None,
        placeholder="All suppressed tokens; choose one to see its destinations and where it was written",
        format_func=lambda one: escape_markdown(f"{visible(known[one].text)}  (probed {known[one].count} times)"),
        key="routing_source",
        label_visibility="collapsed",
        on_change=lambda: selection.choose_known("source", st.session_state["routing_source"], known),
    )
    return st.session_state["routing_source"]


def choose_maps(heatmap: Heatmap) -> list[str]:
    """What is laid side by side."""
    offered = shape.offered(heatmap)
    wanted = (selection.text("maps") or "").split(",")
    chosen = [name for name in offered if name in wanted] or [name for name in offered if name in shape.SHOWN]
    st.session_state["routing_maps"] = chosen
    st.pills(
        "Maps",
        offered,
        selection_mode="multi",
        format_func=shape.MAPS.__getitem__,
        key="routing_maps",
        label_visibility="collapsed",
        on_change=lambda: selection.choose(maps=",".join(st.session_state["routing_maps"]) or None),
    )
    return chosen


def heatmaps(heatmap: Heatmap, maps: list[str], *, first: int, last: int) -> None:
    """The chosen maps, side by side."""
    used, sent = shape.change_scale(heatmap), shape.sent_scale(heatmap)
    with st.grid(min(3, len(maps)), min_column_width=330):
        for which in maps:
            title = shape.MAPS[which]
            with st.container():
                st.markdown(f"**{title}**")
                st.echarts_chart(
                    shape.option(heatmap, which, sent if which == "routed" else used, theme=charts.theme()),
                    height=170 + 22 * len(heatmap.rows),
                    key=f"routing_{which}",
                    alt=f"{title}: means for {len(heatmap.columns)} destination tokens of "
                    f"{len(heatmap.rows)} suppressed tokens, steps {first} to {last}",
                )
    cosine = shape.agreement(heatmap)
    agree = "" if cosine is None else f" Cosine of predicted and realised: {cosine:.2f}."
    units = " What was sent is in nats per suppressed token, on a scale of its own." if "routed" in maps else ""
    st.caption(
        f"Changes of probability share one scale, ±{used.limit:.2g}, centred at 0: red lost, blue gained."
        f" {used.clamped} predicted and realised cells lie beyond it and are clamped.{agree}{units}"
    )
    for which in maps:
        if which in shape.NOTES:
            st.caption(shape.NOTES[which])


def places(source: int, first: int, last: int) -> None:
    """The sequences behind a row."""
    found = data.suppressed(job.id, source, first, last)
    st.markdown(f"**Where it was written and suppressed** :gray[{found.total:,} recorded places, the loudest first]")
    if not found.data:
        return
    st.dataframe(
        shape.places(found, job.id),
        hide_index=True,
        height="content" if len(found.data) < 9 else 320,
        key="places",
        alt="Places where the chosen token was suppressed",
        column_config={
            "place": st.column_config.LinkColumn("", display_text="open", width=60),
            "log-ratio": st.column_config.NumberColumn(format="%+.3f"),
            "coefficient": st.column_config.NumberColumn(format="%+.3f"),
        },
    )


def landing(first: int, last: int) -> None:
    """Whom the released mass went to, beside what softmax alone would have done."""
    table = shape.landing(data.metrics(job.id), first, last)
    if table is None:
        return
    st.markdown("**Who got what suppressed tokens lost** :gray[% of all gains at the probed states]")
    st.echarts_chart(
        shape.landing_option(table),
        height=170,
        key="routing_landing",
        alt="Shares of released probability by who received it: realised, predicted and by softmax alone",
    )
    st.caption("  \n".join(f"**{name}**: {meaning}" for _, name, meaning in shape.LANDINGS))


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
    moving = (first if low is None else None, last if high is None else None)
    key = selection.slider_key("routing_range", moving, moves=running and moving != (None, None))
    st.session_state[key] = (first, last)

    def changed() -> None:
        begin, end = st.session_state[key]
        # An end that was left where it was keeps moving with the run.
        selection.choose(**{"from": None if begin == newest else begin, "to": None if end == steps[-1] else end})

    st.select_slider("Steps", steps, value=(first, last), key=key, on_change=changed)
    return first, last


def balance(found: RouteBalance | None) -> None:
    """What the plan takes from suppressed tokens and sends on; or why it sends nothing."""
    if found is None:
        st.caption(shape.unrouted(job))
        return
    figures(shape.balance_figures(found))
    st.caption(
        "Means in nats per suppressed token, over all recorded tokens of these steps, probed or not: what the plan "
        "takes away, what it sends to named destinations, and how many tokens send nothing."
    )


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
