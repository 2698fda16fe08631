"""What one or two students wrote to a prompt: strips on one colour scale, and the selected token of each."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from api.schemas import Job, Probe, Sequence
from dashboard.components import answer, selection
from dashboard.components.color_pills import color_pills
from dashboard.components.token_card import token_card
from dashboard.components.token_side import token_side
from dashboard.components.token_strip import token_strip
from dashboard.shaping import fields, pairs
from dashboard.shaping import tokens as shape
from dashboard.shaping.text import escape_markdown, readable

SIDES = {"left": "token", "right": "token2"}  # and the name of its selected token in the URL
Side = tuple[str, Job, Probe]


def probe_view(answered: list[Side]) -> None:
    """The answers that have come, as on the Tokens page; of two the strips first, then the tokens side by side."""
    written = [one for one in answered if one[2].sequence.tokens]
    for _, job, result in answered:
        if not result.sequence.tokens:
            _heading(job, result)
            st.caption("The student wrote nothing.")
    if not written:
        return
    sequences = [result.sequence for *_, result in written]
    offered = fields.offered(sequences)
    field = color_pills(offered, key="probe_color")
    used = fields.field_scale(field, sequences)
    parted = pairs.parting(*([token.id for token in one.tokens] for one in sequences)) if len(sequences) == 2 else None
    chosen = []
    for side, job, result in written:
        _heading(job, result)
        sequence = result.sequence
        position = _position(SIDES[side], sequence, parted)
        place = shape.place(job.id, result.step, sequence.n)
        drawing = shape.strip(sequence, field, used, offered.values(), place=place, selected=position)
        token_strip(drawing, key=f"probe_strip_{side}", on_pick=_picker(SIDES[side]))
        st.code(readable(sequence.completion), language=None, wrap_lines=True)
        chosen.append(sequence.tokens[position])
    st.caption(escape_markdown(fields.scale_note(field, used)))
    if len(written) == 1:
        token_card(chosen[0], written[0][1], key="probe_", updated=False)
        return
    st.caption("Both wrote the same tokens." if parted is None else f"They part at token {parted}.")
    for column, side, token in zip(st.columns(2), SIDES, chosen, strict=True):
        with column:
            token_side(side, token)


def _position(key: str, sequence: Sequence, parted: int | None) -> int:
    """The selected token: the URL's, else where the two part, else the one with the most to tell."""
    position = selection.number(key)
    if position is None:
        position = next(iter(shape.extremes(sequence, fields.LOG_RATIO)), 0) if parted is None else parted
    return min(position, len(sequence.tokens) - 1)


def _picker(key: str) -> Callable[[str, int], None]:
    return lambda _, position: selection.choose(**{key: position})


def _heading(job: Job, result: Probe) -> None:
    where = f"checkpoint {result.checkpoint}" if result.checkpoint else "the student of the run's start"
    st.subheader(escape_markdown(f"{job.name}: what {where} wrote"), anchor=False)
    for note in result.notes:
        st.warning(escape_markdown(note), icon=":material/info:")
    if any(not mark.exact for mark in result.marks.values()):
        answer.badges(result.marks)
    st.code(readable(result.sequence.prompt), language=None, wrap_lines=True)
