"""Probe: the run's student completes a prompt of yours; teacher and method say what they make of it."""

from __future__ import annotations

import streamlit as st

from api.schemas import Probe
from dashboard import data
from dashboard.components import answer, selection
from dashboard.components.color_pills import color_pills
from dashboard.components.run_header import chosen_run
from dashboard.components.token_card import token_card
from dashboard.components.token_strip import token_strip
from dashboard.shaping import fields
from dashboard.shaping import tokens as shape
from dashboard.shaping.text import escape_markdown, readable

MAX_PROMPT = 16_384
NEWEST = ""

job = chosen_run()


def form() -> None:
    """The prompt and how it is completed; the button asks."""
    names = [one.name for one in data.checkpoints(job.id) if one.kind == "training"]
    prompt = st.text_area(
        "Prompt",
        example(),
        key=f"probe_prompt_{job.id}",
        height=90,
        max_chars=MAX_PROMPT,
        help="Write it as the training prompts are written. A chat template is applied as in the run.",
    )
    first, second, third = st.columns(3)
    checkpoint = first.selectbox(
        "Student",
        [NEWEST, *reversed(names)],
        format_func=lambda name: name or ("the newest checkpoint" if names else "the start of the run"),
        key="probe_checkpoint",
    )
    rollout = job.resolved_spec.get("rollout", {})
    temperature = second.number_input(
        "Temperature",
        value=float(rollout.get("temperature", 1.0)),
        min_value=0.0,
        max_value=10.0,
        step=0.1,
        key="probe_temperature",
        help="0 = the likeliest token every time.",
    )
    seed = third.number_input("Seed", value=0, min_value=0, max_value=2**31 - 1, step=1, key="probe_seed")
    if st.button("Let the student write", type="primary", icon=":material/science:", key="probe_ask"):
        answer.ask(
            "probe",
            lambda: data.probe(
                job.id, prompt, temperature=float(temperature), seed=int(seed), checkpoint=checkpoint or None
            ),
        )


def example() -> str:
    """A prompt of the run's own, to start from."""
    steps = data.steps(job.id)
    recorded = data.sequences(job.id, steps[0]) if steps else []
    return recorded[0].prompt if recorded else ""


def show(result: Probe) -> None:
    """The strip and the selected token, as on the Tokens page."""
    sequence = result.sequence
    where = f"checkpoint {result.checkpoint}" if result.checkpoint else "the student of the run's start"
    st.subheader(escape_markdown(f"What {where} wrote"), anchor=False)
    for note in result.notes:
        st.warning(escape_markdown(note), icon=":material/info:")
    if any(not mark.exact for mark in result.marks.values()):
        answer.badges(result.marks)
    st.code(readable(sequence.prompt), language=None, wrap_lines=True)
    offered = fields.offered([sequence])
    field = color_pills(offered, key="probe_color")
    position = selection.number("token")
    if position is None:
        position = next(iter(shape.extremes(sequence, fields.LOG_RATIO)), 0)
    position = min(position, len(sequence.tokens) - 1)
    used = fields.field_scale(field, [sequence])
    drawing = shape.strip(
        sequence, field, used, offered.values(), place=shape.place(job.id, result.step, sequence.n), selected=position
    )
    token_strip(drawing, key="probe_strip", on_pick=lambda _, pos: selection.choose(token=pos))
    st.caption(escape_markdown(fields.scale_note(field, used)))
    st.code(readable(sequence.completion), language=None, wrap_lines=True)
    token_card(sequence.tokens[position], job, key="probe_", updated=False)


form()
found = answer.answered(job, "probe")
if found is not None and isinstance(found.result, Probe):
    show(found.result)
