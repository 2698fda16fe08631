"""Probe: the run's student completes a prompt of yours, beside another run's if you like; teacher and method say what
they make of it.
"""

from __future__ import annotations

import streamlit as st

from api.schemas import Job, Probe, Question
from dashboard import data
from dashboard.components import answer, selection
from dashboard.components.probe_view import probe_view
from dashboard.components.run_header import chosen_run
from dashboard.shaping.runs import run_label

MAX_PROMPT = 16_384
NEWEST = ""

job = chosen_run()


def second_run() -> Job | None:
    """Another run whose student gets the same prompt, if one is chosen."""
    others = {one.id: one for one in data.jobs() if one.id != job.id}
    wanted = selection.text("against")
    if wanted is not None and wanted not in {*others, job.id}:
        others[wanted] = data.job(wanted)
    st.session_state["probe_against"] = wanted if wanted in others else None
    st.selectbox(
        "Beside",
        list(others),
        index=None,
        placeholder="No second run; choose one to lay both students side by side",
        format_func=lambda one: run_label(others[one]),
        key="probe_against",
        on_change=lambda: selection.choose(against=st.session_state["probe_against"], probe2=None, token2=None),
    )
    return others.get(st.session_state["probe_against"])


def form(other: Job | None) -> None:
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
        help="Of the run above; a second run answers with its newest checkpoint.",
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

    def question(of: Job, name: str | None) -> Question:
        return data.probe(of.id, prompt, temperature=float(temperature), seed=int(seed), checkpoint=name)

    label = "Let the student write" if other is None else "Let both students write"
    if st.button(label, type="primary", icon=":material/science:", key="probe_ask"):
        answer.ask("probe", lambda: question(job, checkpoint or None))
        if other is not None:
            answer.ask("probe2", lambda: question(other, None))


def example() -> str:
    """A prompt of the run's own, to start from."""
    steps = data.steps(job.id)
    recorded = data.sequences(job.id, steps[0]) if steps else []
    return recorded[0].prompt if recorded else ""


other = second_run()
form(other)
asked = [("left", job, "probe")] if other is None else [("left", job, "probe"), ("right", other, "probe2")]
found = [(side, of, answer.answered(of, key)) for side, of, key in asked]
probe_view([(side, of, one.result) for side, of, one in found if one is not None and isinstance(one.result, Probe)])
