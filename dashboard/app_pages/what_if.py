"""What if: a recorded step planned again under another method, beside what it was trained with. Nothing is trained."""

from __future__ import annotations

import streamlit as st

from api.schemas import Replan
from dashboard import data
from dashboard.components import answer, selection
from dashboard.components.charts import theme
from dashboard.components.color_pills import color_pills
from dashboard.components.run_header import chosen_run
from dashboard.components.token_strip import token_strip
from dashboard.shaping import fields, token_detail, what_if
from dashboard.shaping import tokens as shape
from dashboard.shaping.text import escape_markdown, readable, visible

OWN = ""  # the run's own method

job = chosen_run()


def form(steps: list[int]) -> None:
    """Which sequence, and which method; the button asks."""
    step = shape.nearest(steps, selection.number("step")) or steps[-1]
    known = {summary.n: summary for summary in data.sequences(job.id, step)}
    n = selection.number("seq")
    n = n if n in known else next(iter(known), None)
    where, which = st.columns(2)
    with where:
        pick_step(steps, step)
        if n is None:
            st.info(f"Step {step} has no recorded sequences.", icon=":material/format_color_text:")
            return
        st.session_state["whatif_seq"] = n
        st.selectbox(
            "Sequence",
            list(known),
            format_func=lambda one: shape.sequence_label(known[one]),
            key="whatif_seq",
            on_change=lambda: selection.choose(seq=st.session_state["whatif_seq"], token=None),
        )
    with which:
        titles = {recipe.name: recipe.title for recipe in data.recipes()}
        recipe = st.selectbox(
            "Method",
            [OWN, *titles],
            format_func=lambda name: f"{name} · {titles[name]}" if name else f"the run's own ({job.recipe})",
            key="whatif_recipe",
        )
        text = st.text_area(
            "Changes to it, as YAML or JSON",
            key="whatif_changes",
            height=90,
            placeholder="credit: {estimator: discounted, gamma: 0.5}",
            help="Variable by variable, as `method` in a job spec. Checked like the spec of a new run.",
        )
    if st.button("Plan again", type="primary", icon=":material/fork_right:", key="whatif_ask"):
        try:
            changes = what_if.changes(text)
        except what_if.NotAMapping as error:
            st.error(escape_markdown(str(error)), icon=":material/error:")
            return
        answer.ask("whatif", lambda: data.replan(job.id, step, n, recipe or None, changes))


def pick_step(steps: list[int], step: int) -> None:
    """The step; a slider of one step cannot be drawn."""
    if len(steps) == 1:
        st.caption(f"Step {step}")
        return
    st.session_state["whatif_step"] = step
    st.select_slider(
        "Step",
        steps,
        key="whatif_step",
        on_change=lambda: selection.choose(step=st.session_state["whatif_step"], seq=None, token=None),
    )


def show(result: Replan) -> None:
    """Both plans of the sequence: strips on one scale, what lies between, and the selected token."""
    pair = result.sequences[0]
    recorded, replanned, difference = pair.recorded, pair.replanned, what_if.between(pair)
    method = result.recipe or f"{job.recipe}, changed"
    st.subheader(escape_markdown(f"Step {result.step}, sequence {recorded.n}: {method}"), anchor=False)
    answer.badges(result.marks)
    st.code(readable(recorded.prompt), language=None, wrap_lines=True)
    offered = what_if.offered(pair)
    field = color_pills(offered, key="whatif_color", default=fields.COEFFICIENT)
    position = selection.number("token")
    if position is None:
        position = next(iter(shape.extremes(difference, what_if.of_difference(field))), 0)
    position = min(position, len(recorded.tokens) - 1)
    place = shape.place(job.id, result.step, recorded.n)
    used = fields.field_scale(field, [recorded, replanned])
    changed = what_if.of_difference(field)
    rows = (
        (f"As trained ({job.recipe})", recorded, field, used),
        (f"Re-planned ({method})", replanned, field, used),
        ("Re-planned minus as trained", difference, changed, fields.field_scale(changed, [difference])),
    )
    for number, (title, sequence, one, its_scale) in enumerate(rows):
        st.caption(escape_markdown(f"{title}: {one.label}"))
        drawing = shape.strip(sequence, one, its_scale, offered.values(), place=place, selected=position)
        token_strip(drawing, key=f"whatif_strip_{number}", on_pick=picked)
    st.caption(escape_markdown(f"{field.label}: {field.meaning}. Both plans on one scale; the change on its own."))
    shown = {key: what_if.of_difference(one) for key, one in offered.items()}
    option, _ = what_if.heatmap(difference, shown, theme=theme())
    st.markdown("**Where the plans differ** :gray[every row in its own largest change]")
    st.echarts_chart(
        option,
        height=150 + 26 * len(shown),
        key="whatif_heatmap",
        alt="Change of each number by position, re-planned minus as trained",
    )
    detail(result, position, offered)


def picked(place: str, position: int) -> None:
    """Select a token of the answer; the question stays."""
    if shape.read_place(place, job.id) is not None:
        selection.choose(token=position)


def detail(result: Replan, position: int, offered: dict[str, fields.Field]) -> None:
    """The selected token under both plans."""
    pair = result.sequences[0]
    before, after = pair.recorded.tokens[position], pair.replanned.tokens[position]
    st.subheader(f"Token {before.pos}", anchor=False)
    st.text(f"{visible(before.text)}   (id {before.id})   {token_detail.verdict(before)}")
    left, right = st.columns(2)
    signed = st.column_config.NumberColumn(format="%+.4f")
    with left:
        st.markdown("**Both plans' numbers**")
        st.dataframe(
            what_if.numbers(before, after, offered, result.marks),
            hide_index=True,
            key="whatif_numbers",
            alt="Numbers of the selected token under both plans",
            column_config=dict.fromkeys(
                ("as trained", "re-planned", "change"), st.column_config.TextColumn(alignment="right")
            ),
        )
        st.markdown("**Where the plans send what it gives up**")
        routes = what_if.routes(before, after)
        if routes is None:
            st.caption("Neither plan sends anything to a named destination here.")
        else:
            st.dataframe(
                routes,
                hide_index=True,
                key="whatif_routes",
                alt="Routes of both plans at the selected token",
                column_config={"token": "destination", "as trained": signed, "re-planned": signed},
            )
    with right:
        st.markdown("**Force on the logits** :gray[and the change of probability that it makes, to first order]")
        st.dataframe(
            what_if.forces(pair.forces[position], before.id),
            hide_index=True,
            key="whatif_forces",
            alt="Forces of both plans on the tokens that they push most at the selected token",
            column_config=dict.fromkeys(("as trained", "re-planned", "change", "moved", "would move"), signed),
        )
        st.caption("Before aggregation, at the same step size for both plans. The sampled token comes first.")
        recorded = [f"{names}: {why}" for names, why in what_if.approximate(result.recorded_marks)]
        if recorded:
            st.caption(escape_markdown(f"As trained, approximate: {'; '.join(recorded)}."))


steps = data.steps(job.id)
if not steps:
    st.info(
        "No records yet: a step can be planned again once it was recorded."
        if not job.terminal
        else "This run recorded no tokens, so there is nothing to plan again (telemetry.sequences_per_step).",
        icon=":material/format_color_text:",
    )
else:
    form(steps)
    found = answer.answered(job, "whatif")
    if found is not None and isinstance(found.result, Replan):
        show(found.result)
