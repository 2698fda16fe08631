"""What two runs made of the same problem: two strips of tokens on one colour scale."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from api.schemas import Job, Sequence
from dashboard import data
from dashboard.components import comparison, selection
from dashboard.components.color_pills import color_pills
from dashboard.components.token_side import token_side
from dashboard.components.token_strip import token_strip
from dashboard.shaping import fields, pairs
from dashboard.shaping import tokens as shape
from dashboard.shaping.colors import Scale
from dashboard.shaping.runs import run_label
from dashboard.shaping.text import escape_markdown, readable

SIDES = ("left", "right")


def token_pairs(jobs: list[str]) -> None:
    """Two of the compared runs, a step, a problem that both recorded near it, and its tokens."""
    known = {job_id: data.job(job_id) for job_id in jobs}
    left, right = _pick_runs(known)
    recorded = {one: data.steps(one) for one in (left, right)}
    empty = [known[one].name for one, steps in recorded.items() if not steps]
    if left == right or empty:
        why = f"{empty[0]} recorded no tokens (yet)." if empty else "Choose two different runs."
        st.info(escape_markdown(why), icon=":material/format_color_text:")
        return
    step = _pick_step(pairs.reached(recorded[left], recorded[right]))
    offered = data.shared_problems(left, right, step)
    found = pairs.chosen(offered, selection.text("pair"))
    if found is None:
        st.caption(
            "Both runs recorded no problem in common within 40 steps of here. Each side shows its first recorded "
            "sequence nearest to the step: these are different problems."
        )
        places = [(one, shape.nearest(recorded[one], step) or 0, 0) for one in (left, right)]
    else:
        _pick_pair({pairs.name(one): pairs.label(one) for one in offered}, pairs.name(found))
        places = [(left, found.left.step, found.left.n), (right, found.right.step, found.right.n)]
    sequences = [data.sequence(*place) for place in places]
    offered_fields = fields.offered(sequences)
    field = color_pills(offered_fields, key="compare_color", choose=comparison.choose)
    used = fields.field_scale(field, sequences)
    if found is not None:
        st.caption("Prompt")
        st.code(readable(found.prompt), language=None, wrap_lines=True)
    for side, place, sequence in zip(SIDES, places, sequences, strict=True):
        _strip(side, known[place[0]], place, sequence, field, used, offered_fields, alone=found is None)
    st.caption(escape_markdown(f"{field.label}: {field.meaning}. One scale for both runs."))
    for column, side, sequence in zip(st.columns(2), SIDES, sequences, strict=True):
        if sequence.tokens:
            with column:
                token_side(side, sequence.tokens[_token(side, sequence)])


def _pick_runs(known: dict[str, Job]) -> tuple[str, str]:
    ids = list(known)
    picked = []
    for column, side, default in zip(st.columns(2), SIDES, ids, strict=False):
        wanted = selection.text(side)
        key = f"compare_{side}"
        st.session_state[key] = wanted if wanted in known else default
        column.selectbox(
            side.capitalize(),
            ids,
            format_func=lambda one: run_label(known[one]),
            key=key,
            on_change=_chooser(key, side, "pair", "lt", "rt"),
        )
        picked.append(st.session_state[key])
    return picked[0], picked[1]


def _chooser(key: str, name: str, *forgotten: str) -> Callable[[], None]:
    """A callback that writes a widget's value to the URL under ``name`` and forgets what depended on it."""
    return lambda: comparison.choose(**dict.fromkeys(forgotten), **{name: st.session_state[key]})


def _pick_step(steps: list[int]) -> int:
    step = shape.nearest(steps, selection.number("near")) or 0
    if len(steps) > 1:
        st.session_state["compare_near"] = step
        st.select_slider(
            "Near step", steps, key="compare_near", on_change=_chooser("compare_near", "near", "pair", "lt", "rt")
        )
    else:
        st.caption(f"Step {step}")
    return step


def _pick_pair(labels: dict[str, str], chosen: str) -> None:
    st.session_state["compare_pair"] = chosen
    st.selectbox(
        "Problem",
        list(labels),
        format_func=labels.__getitem__,
        key="compare_pair",
        help="Problems that both runs recorded within 40 steps, nearest first. ✓ right, ✗ wrong.",
        on_change=_chooser("compare_pair", "pair", "lt", "rt"),
    )


def _token(side: str, sequence: Sequence) -> int:
    return min(selection.number(f"{side[0]}t") or 0, len(sequence.tokens) - 1)


def _strip(
    side: str,
    job: Job,
    place: tuple[str, int, int],
    sequence: Sequence,
    field: fields.Field,
    used: Scale,
    offered: dict[str, fields.Field],
    *,
    alone: bool,
) -> None:
    st.markdown(f"**{escape_markdown(pairs.heading(side.capitalize(), job.name, sequence, place[1]))}**")
    if alone:
        st.code(readable(sequence.prompt), language=None, wrap_lines=True)
    if not sequence.tokens:
        st.caption("The student wrote nothing here.")
        return
    drawing = shape.strip(
        sequence, field, used, offered.values(), place=shape.place(*place), selected=_token(side, sequence)
    )

    def picked(where: str, position: int) -> None:
        if where == shape.place(*place):
            comparison.choose(**{f"{side[0]}t": position})

    token_strip(drawing, key=f"strip_{side}", on_pick=picked)
