"""Log-ratios, returns and advantages of all tokens: by position, over the steps, in size; and the critic."""

from __future__ import annotations

import streamlit as st

from api.schemas import Profile
from dashboard import data
from dashboard.components import charts, live, selection
from dashboard.components.run_header import chosen_run, recorded_steps
from dashboard.shaping import profiles as shape
from dashboard.shaping.curves import horizon, newest
from dashboard.shaping.tokens import nearest

REFRESH_S = 4.0

job = chosen_run()
running = not job.terminal


def view() -> None:
    """The whole page below the header."""
    if not recorded_steps(job, ":material/stacked_line_chart:"):
        return
    name = selection.text("quantity") or "log_ratio"
    name = name if name in shape.QUANTITIES else "log_ratio"
    found = data.returns(job.id, name)
    offered = shape.offered(found)
    if not offered:
        st.info("An earlier version recorded this run: it has no profiles.", icon=":material/stacked_line_chart:")
        return
    if name not in offered:
        name, found = offered[0], data.returns(job.id, offered[0])
    choose_quantity(offered, name)
    title, meaning, signed = shape.QUANTITIES[name]
    st.caption(
        f"**{title}**: {meaning}. Over every token that the student wrote in a step, not only the recorded ones."
    )
    used = shape.mean_scale(found, signed=signed)
    left, right = st.columns([3, 2])
    with left:
        st.markdown(f"**By position and step** :gray[mean {title}]")
        st.echarts_chart(
            shape.heatmap(found, used, theme=charts.theme()),
            height=430,
            key="returns_heatmap",
            alt=f"Mean {title} by token position and training step",
        )
        if used.clamped:
            st.caption(f"{used.clamped} cells lie beyond the scale and are clamped to its ends.")
    with right:
        st.markdown(f"**Over the steps** :gray[quantiles of {title}]")
        st.echarts_chart(
            shape.bands(found, end=horizon(max(found.steps), data.job(job.id).progress.total)),
            height=430,
            key="returns_bands",
            alt=f"Quantiles and mean of {title} over the steps",
        )
    step = choose_step(found)
    one = data.returns(job.id, name, step, step)
    distribution(one, title, step)
    if "value" in found.fields:
        critic(step)


def choose_quantity(offered: list[str], name: str) -> None:
    """Which quantity."""
    st.session_state["returns_quantity"] = name
    st.pills(
        "Quantity",
        offered,
        format_func=shape.label,
        key="returns_quantity",
        required=True,
        label_visibility="collapsed",
        on_change=lambda: selection.choose(quantity=st.session_state["returns_quantity"]),
    )


def choose_step(found: Profile) -> int:
    """One step for the panels below; the newest until someone chooses."""
    steps = data.steps(job.id)
    step = nearest(steps, selection.number("step"))
    if step is None:
        return found.to_steps[-1]
    moves = running and selection.number("step") is None
    if len(steps) > 1:
        key = selection.slider_key("returns_step", step, moves=moves)
        st.session_state[key] = step
        st.select_slider(
            "Step",
            steps,
            key=key,
            on_change=lambda: selection.choose_moved("step", st.session_state[key], shown=step),
        )
    return step


def distribution(one: Profile, title: str, step: int) -> None:
    """How the quantity is spread at the chosen step."""
    left, right = st.columns([3, 2])
    with left:
        st.markdown(f"**Distribution at step {step}** :gray[share of tokens, logarithmic]")
        drawn = shape.histogram(one)
        if drawn is None:
            st.caption("Nothing was recorded at this step.")
        else:
            st.echarts_chart(
                drawn, height=240, key="returns_histogram", alt=f"Distribution of {title} over tokens at step {step}"
            )
    with right:
        st.markdown("**In numbers**")
        with st.container(horizontal=True, gap="small"):
            for label, value in shape.facts(one):
                st.metric(label, value, border=True)


def critic(step: int) -> None:
    """What the critic expected against what came."""
    st.subheader("Critic", anchor=False)
    metrics = data.metrics(job.id)
    explained = newest(metrics, "critic_explained_variance")
    length = newest(metrics, "critic_length_correlation")
    left, right = st.columns([3, 2])
    with left:
        st.markdown(f"**Value and return by position, step {step}** :gray[means, in nats]")
        lines = {
            "value V": data.returns(job.id, "value", step, step),
            "return": data.returns(job.id, "return", step, step),
        }
        drawn = shape.by_position(lines)
        if drawn is not None:
            st.echarts_chart(
                drawn, height=240, key="returns_critic", alt="The critic's value and the return by position"
            )
    with right:
        st.markdown("**How good is it?** :gray[newest step]")
        with st.container(horizontal=True, gap="small"):
            st.metric(
                "explained variance",
                "–" if explained is None else f"{explained:.2f}",
                help="1 = the critic knows every return beforehand, 0 = no better than one constant, below 0 = worse.",
                border=True,
            )
            st.metric(
                "correlation with length left",
                "–" if length is None else f"{length:+.2f}",
                help="Near ±1 the critic is little more than a baseline for the remaining length.",
                border=True,
            )
        st.caption(
            "The return here is the undiscounted sum of log-ratios; a critic with a discount or a differential form "
            "aims at another target, so its level may differ while its shape should follow."
        )


live.panel(view, every=live.tick(job, REFRESH_S))
