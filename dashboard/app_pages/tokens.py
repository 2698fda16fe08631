"""One rollout, token by token: what the feedback said, what the gates let through, what moved."""

from __future__ import annotations

import streamlit as st

from api.schemas import Sequence, SequenceSummary
from dashboard import data
from dashboard.components import live, player, selection
from dashboard.components.color_pills import color_pills
from dashboard.components.run_header import chosen_run, recorded_steps
from dashboard.components.token_card import token_card
from dashboard.components.token_strip import token_strip
from dashboard.shaping import fields
from dashboard.shaping import tokens as shape
from dashboard.shaping.colors import Scale
from dashboard.shaping.text import escape_markdown, readable, visible

JUMPS = 10
KEYS = (
    "Keys, after a click on the strip: ← → token, Home End, X next extreme (shift: back), ↑ ↓ sequence, "
    "Page↑ Page↓ step, space play and pause."
)

job = chosen_run()
running = not job.terminal


def view() -> None:
    """The whole page below the header."""
    steps = recorded_steps(job, ":material/format_color_text:")
    if player.playing():
        player.advance(steps, running=running)
    step = shape.nearest(steps, selection.number("step"))
    if step is None:
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
    sizes = data.quantities(job.id, step)
    offered = fields.offered_at(sizes)
    choose_sequence(known, n)
    field, second = choose_colors(offered)
    used = fields.scale_at(field, sizes)
    if not sequence.tokens:
        texts(sequence)
        st.caption("The student wrote nothing here.")
        return
    # Until someone chooses: the token with the most to tell.
    position = selection.number("token")
    if position is None:
        position = next(iter(shape.extremes(sequence, fields.LOG_RATIO)), 0)
    position = min(position, len(sequence.tokens) - 1)

    left, right = st.columns([2, 5])
    with left:
        texts(sequence)
    with right:
        token_strip(
            shape.strip(
                sequence,
                field,
                used,
                offered.values(),
                place=shape.place(job.id, step, n),
                selected=position,
                second=None if second is None else (second, fields.scale_at(second, sizes)),
            ),
            key="strip",
            on_pick=picked,
            on_move=moved,
        )
        st.caption(escape_markdown(fields.scale_note(field, used)))
        st.caption(KEYS)
        other_step(steps, step, n, field, used, offered)
        st.caption("The same as plain text")
        st.code(readable(sequence.completion), language=None, wrap_lines=True)
    jump(sequence, field)
    token_card(sequence.tokens[position], job)


def picked(place: str, position: int) -> None:
    """Select a token, and pin its step: following on would replace the token under the reader's eyes."""
    if (where := shape.read_place(place, job.id)) is not None:
        selection.choose(step=where[0], seq=where[1], token=position)


def moved(place: str, what: str, by: int) -> None:
    """A key that leaves the strip: to the next sequence or step, or play and pause."""
    where = shape.read_place(place, job.id)
    if what == "play":
        player.play(not player.playing(), data.steps(job.id))
    elif where is not None and what == "sequence":
        known = [summary.n for summary in data.sequences(job.id, where[0])]
        if (target := shape.neighbour(known, where[1], by)) is not None:
            selection.choose(step=where[0], seq=target, token=None)
    elif where is not None and (target := shape.neighbour(data.steps(job.id), where[0], by)) is not None:
        selection.choose(step=target)


def choose_step(steps: list[int], step: int) -> None:
    """The step slider, play and pause, and the way back to the newest step."""
    pinned = selection.number("step") is not None
    slider, starter, follow = st.columns([7, 1, 1], vertical_alignment="bottom")
    if len(steps) > 1:
        key = selection.slider_key("tokens_step", step, moves=player.playing() or (running and not pinned))
        st.session_state[key] = step
        slider.select_slider(
            "Step",
            steps,
            key=key,
            on_change=lambda: selection.choose_moved("step", st.session_state[key], shown=step),
        )
        starter.button(
            "Pause" if player.playing() else "Play",
            key="tokens_play",
            icon=":material/pause:" if player.playing() else ":material/play_arrow:",
            help="Go through the recorded steps, one a second.",
            on_click=lambda: player.play(not player.playing(), steps),
        )
    else:
        slider.caption(f"Step {step}")
    if running and pinned and not player.playing():
        follow.button(
            "Follow live",
            key="tokens_follow",
            icon=":material/sensors:",
            help="Show the newest recorded step again, and the ones to come.",
            on_click=lambda: selection.choose(step=None),
        )
    elif running and not player.playing():
        follow.badge(
            "live",
            icon=":material/sensors:",
            color="blue",
            help="Always the newest recorded step. Picking a step or a token pauses it.",
        )


def choose_sequence(known: dict[int, SequenceSummary], n: int) -> None:
    """Which of the step's recorded sequences."""
    st.session_state["tokens_seq"] = n
    st.selectbox(
        "Sequence",
        list(known),
        format_func=lambda one: shape.sequence_label(known[one]),
        key="tokens_seq",
        on_change=lambda: selection.choose_known("seq", st.session_state["tokens_seq"], known, token=None),
    )


def choose_colors(offered: dict[str, fields.Field]) -> tuple[fields.Field, fields.Field | None]:
    """Which number colours the tokens, and which one, if any, the bar below them."""
    colors, bars = st.columns([6, 1], vertical_alignment="bottom")
    with colors:
        field = color_pills(offered, key="tokens_color")
    second = offered.get(selection.text("second") or "")
    st.session_state["tokens_second"] = second.key if second else ""
    bars.selectbox(
        "Bar below",
        ["", *offered],
        format_func=lambda key: escape_markdown(offered[key].label) if key else "none",
        key="tokens_second",
        help="A second number beside the colour, as a bar below each token.",
        on_change=lambda: selection.choose(second=st.session_state["tokens_second"] or None),
    )
    return field, second


def other_step(
    steps: list[int], step: int, n: int, field: fields.Field, used: Scale, offered: dict[str, fields.Field]
) -> None:
    """The same place at another step, on the same scale."""
    if len(steps) < 2:
        return
    wanted = selection.number("other")
    st.session_state["tokens_other"] = wanted if wanted in steps else None
    st.selectbox(
        "Beside another step",
        steps,
        key="tokens_other",
        index=None,
        placeholder="Compare with another step",
        label_visibility="collapsed",
        on_change=lambda: selection.choose_known("other", st.session_state["tokens_other"], steps),
    )
    if wanted not in steps:
        return
    known = [summary.n for summary in data.sequences(job.id, wanted)]
    if not known:
        return
    there = n if n in known else known[0]
    token_strip(
        shape.strip(
            data.sequence(job.id, wanted, there),
            field,
            used,
            offered.values(),
            place=shape.place(job.id, wanted, there),
            selected=-1,
        ),
        key="strip_other",
        on_pick=picked,
        on_move=moved,
    )
    st.caption(f"Step {wanted}, sequence {there}, on the scale of step {step}. A click goes there.")


def jump(sequence: Sequence, field: fields.Field) -> None:
    """Straight to the tokens with the largest values."""
    found = shape.extremes(sequence, field)[:JUMPS]
    if not found:
        return
    tokens = {pos: sequence.tokens[pos] for pos in found}
    st.session_state["tokens_jump"] = None

    def jumped() -> None:
        if (target := st.session_state["tokens_jump"]) is not None:
            selection.choose(step=sequence.step, seq=sequence.n, token=target)

    st.pills(
        f"Most extreme by {escape_markdown(field.label)}",
        found,
        format_func=lambda pos: escape_markdown(f"{pos} {visible(tokens[pos].text)} {field.read(tokens[pos]):+.2f}"),
        key="tokens_jump",
        wrap=True,
        on_change=jumped,
    )


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


def panel() -> None:
    """The page, drawn anew as a whole when playing begins or ends: a panel's clock cannot change by itself."""
    if player.switched():
        st.rerun(scope="app")
    view()


player.switched()
live.panel(panel, every=live.TICK_S if player.playing() else live.tick(job))
