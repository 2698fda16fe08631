"""One rollout, token by token: what the feedback said, what the gates let through, what moved."""

from __future__ import annotations

import streamlit as st

from api.schemas import Sequence, SequenceSummary, Token
from dashboard import data
from dashboard.components import live, selection
from dashboard.components.run_header import chosen_run, status_badge
from dashboard.components.token_strip import token_strip
from dashboard.shaping import fields
from dashboard.shaping import tokens as shape
from dashboard.shaping.text import escape_markdown, readable, visible

job = chosen_run()
running = not job.terminal


def view() -> None:
    """The whole page below the header."""
    now = live.refreshed(job)
    steps = data.steps(job.id)
    step = shape.nearest(steps, selection.number("step"))
    if step is None:
        status_badge(now)
        st.info(
            "No records yet: the first step is on its way."
            if running
            else "This run recorded no tokens (telemetry.sequences_per_step is 0, or it ended before its first step).",
            icon=":material/format_color_text:",
        )
        return
    summaries = data.sequences(job.id, step)
    if not summaries:
        st.info(f"Step {step} has no recorded sequences.", icon=":material/format_color_text:")
        return
    choose_step(steps, step)
    known = {summary.n: summary for summary in summaries}
    n = selection.number("seq")
    n = n if n in known else next(iter(known))
    sequence = data.sequence(job.id, step, n)
    compared = [data.sequence(job.id, step, one) for one in list(known)[: data.SCALE_SEQUENCES]]
    offered = fields.offered([sequence, *compared])
    field = choose_sequence_and_color(known, n, offered)
    used = fields.field_scale(field, compared)
    if not sequence.tokens:
        texts(sequence)
        st.caption("The student wrote nothing here.")
        return
    position = min(selection.number("token") or 0, len(sequence.tokens) - 1)

    left, right = st.columns([2, 5])
    with left:
        texts(sequence)
    with right:
        token_strip(
            shape.strip(sequence, field, used, offered.values(), place=shape.place(job.id, step, n), selected=position),
            key="strip",
            on_pick=picked,
        )
        st.caption(escape_markdown(fields.scale_note(field, used)))
        st.caption("The same as plain text")
        st.code(readable(sequence.completion), language=None, wrap_lines=True)
    detail(sequence.tokens[position])


def picked(place: str, position: int) -> None:
    """Select a token, and pin its step: following on would replace the token under the reader's eyes."""
    if (where := shape.read_place(place, job.id)) is not None:
        selection.choose(step=where[0], seq=where[1], token=position)


def choose_step(steps: list[int], step: int) -> None:
    """The step slider, and the way back to the newest step."""
    pinned = selection.number("step") is not None
    slider, follow = st.columns([6, 1], vertical_alignment="bottom") if running else (st.container(), None)
    if len(steps) > 1:
        key = selection.slider_key("tokens_step", step, moves=running and not pinned)
        st.session_state[key] = step
        slider.select_slider(
            "Step",
            steps,
            key=key,
            on_change=lambda: selection.choose(step=st.session_state[key]),
        )
    else:
        slider.caption(f"Step {step}")
    if follow is not None and pinned:
        follow.button(
            "Follow live",
            key="tokens_follow",
            icon=":material/play_arrow:",
            help="Show the newest recorded step again, and the ones to come.",
            on_click=lambda: selection.choose(step=None),
        )
    elif follow is not None:
        follow.badge(
            "live",
            icon=":material/sensors:",
            color="blue",
            help="Always the newest recorded step. Picking a step or a token pauses it.",
        )


def choose_sequence_and_color(
    known: dict[int, SequenceSummary], n: int, offered: dict[str, fields.Field]
) -> fields.Field:
    """Which sequence, and which number colours it."""
    picker, colors = st.columns([2, 5])
    st.session_state["tokens_seq"] = n
    picker.selectbox(
        "Sequence",
        list(known),
        format_func=lambda one: shape.sequence_label(known[one]),
        key="tokens_seq",
        on_change=lambda: selection.choose(seq=st.session_state["tokens_seq"], token=None),
    )
    field = offered.get(selection.text("color") or "", fields.LOG_RATIO)
    st.session_state["tokens_color"] = field.key
    colors.pills(
        "Colour",
        list(offered),
        format_func=lambda key: escape_markdown(offered[key].label),
        key="tokens_color",
        required=True,
        wrap=True,  # a run may offer fifteen
        on_change=lambda: selection.choose(color=st.session_state["tokens_color"]),
    )
    return field


def texts(sequence: Sequence) -> None:
    """Prompt, answer and verdict, as plain text."""
    st.caption("Prompt")
    st.code(readable(sequence.prompt), language=None, wrap_lines=True)
    if sequence.answer is not None:
        st.caption("Expected answer")
        st.code(readable(sequence.answer), language=None, wrap_lines=True)
    if sequence.correct is not None:
        if sequence.correct:
            st.badge("right", color="green", icon=":material/check:")
        else:
            st.badge("wrong", color="red", icon=":material/close:")
    if sequence.truncated:
        st.badge("cut off at the token limit", color="orange", icon=":material/content_cut:")


def detail(token: Token) -> None:
    """Everything about the selected token."""
    st.subheader(f"Token {token.pos}", anchor=False)
    st.text(f"{visible(token.text)}   (id {token.id})   {shape.verdict(token)}")
    numbers(shape.chain(token))
    numbers(shape.parts(token))
    if shape.is_direct(job):
        st.caption(
            "This recipe takes the direct route: the teacher's whole distribution pulls at the student's, scaled by "
            "the gate. No coefficient rests on the sampled token; read the two columns below."
        )
    student, teacher = st.columns(2)
    with student:
        top(token, "student", "The student's favourites")
    with teacher:
        top(token, "teacher", "The teacher's favourites")

    route, probe = shape.route_table(token), shape.probe_table(token)
    left, right = st.columns(2)
    with left:
        st.markdown("**Planned route** :gray[where the plan sends this token's mass]")
        if route is None:
            st.caption("No route: this recipe leaves the destination to the softmax, or this token is not suppressed.")
        else:
            st.dataframe(
                route,
                hide_index=True,
                key="route",
                alt="Planned route of the selected token",
                column_config={
                    "token": st.column_config.TextColumn("destination"),
                    "weight": st.column_config.NumberColumn("sent", format="%.3f"),
                    "plain": st.column_config.NumberColumn(
                        "softmax alone",
                        format="%.3f",
                        help="What the same coefficient would push this destination with if nothing were sent: "
                        "in proportion to what the student already gives it.",
                    ),
                },
            )
    with right:
        st.markdown("**Change of probability** :gray[predicted by the plan, realised after the update]")
        if probe is None:
            st.caption("This state was not probed. Probed states carry both numbers for the tokens that moved most.")
        else:
            st.dataframe(
                probe,
                hide_index=True,
                key="probe",
                alt="Predicted and realised change of probability at the selected token",
                column_config={
                    "predicted": st.column_config.NumberColumn(format="%+.5f"),
                    "realised": st.column_config.NumberColumn(format="%+.5f"),
                },
            )


def numbers(links: list[shape.Link]) -> None:
    """A row of numbers, each with its meaning; it wraps where the page is narrow."""
    with st.container(horizontal=True, gap="small"):
        for link in links:
            st.metric(escape_markdown(link.label), link.value, help=escape_markdown(link.meaning), border=True)


def top(token: Token, who: str, title: str) -> None:
    """One model's most probable tokens, with the other model's opinion of them."""
    st.markdown(f"**{title}**")
    st.dataframe(
        shape.top_table(token, who),
        hide_index=True,
        key=f"top_{who}",
        alt=f"{title} at the selected token",
        column_config={
            "token": st.column_config.TextColumn("token"),
            "student": st.column_config.ProgressColumn("student p", min_value=0.0, max_value=1.0, format="percent"),
            "teacher": st.column_config.ProgressColumn("teacher p", min_value=0.0, max_value=1.0, format="percent"),
        },
    )


live.panel(view, every=live.tick(job))
