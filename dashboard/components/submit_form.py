"""Start a run: recipe, starting point, main fields, everything else as JSON; check; submit."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import streamlit as st

from api.schemas import Job, Recipe
from dashboard import data
from dashboard.shaping import specs
from dashboard.shaping.runs import run_label
from dashboard.shaping.text import escape_markdown

_DEMO = "The demo job"
# The starting values are the inputs' defaults, not their state: a click that overtakes a running script makes
# Streamlit forget state that it was given but has not drawn, and the form would submit zeros. Another starting
# point is another generation of inputs.
_START, _GENERATION, _IDEMPOTENCY = "new_values", "new_generation", "new_idempotency"


def _key(field: str) -> str:
    return f"new_{field}_{st.session_state[_GENERATION]}"


def _start(spec: specs.Spec) -> None:
    st.session_state[_START] = specs.fields(spec)
    st.session_state[_GENERATION] = st.session_state.get(_GENERATION, -1) + 1
    _expect_another_job()


def _expect_another_job() -> None:
    st.session_state[_IDEMPOTENCY] = uuid.uuid4().hex


def submit_form(jobs: Sequence[Job]) -> None:
    """The form; opens the new run after a successful submit."""
    starts = {_DEMO: specs.DEMO_SPEC} | {f"Like {run_label(job)}": job.spec for job in jobs}
    if _START not in st.session_state:
        _start(specs.DEMO_SPEC)
    values: specs.Fields = st.session_state[_START]
    recipes = {recipe.name: recipe for recipe in data.recipes()}

    left, right = st.columns(2)
    with left:
        st.selectbox(
            "Start from",
            list(starts),
            key="new_start",
            on_change=lambda: _start(starts.get(st.session_state["new_start"], specs.DEMO_SPEC)),
        )
    with right:
        recipe = _pick("Recipe", "recipe", list(recipes), values.recipe, lambda name: _recipe_label(recipes, name))
    if recipe in recipes:
        _recipe_card(recipes[recipe])

    with st.form(f"new_form_{st.session_state[_GENERATION]}", border=False):
        form = _inputs(values, recipe)
        with st.container(horizontal=True):
            check = st.form_submit_button("Validate", icon=":material/fact_check:", key="new_validate")
            go = st.form_submit_button("Submit", type="primary", icon=":material/rocket_launch:", key="new_submit")
    if check or go:
        _send(form, go=go)


def _recipe_label(recipes: dict[str, Recipe], name: str) -> str:
    return f"{name} · {recipes[name].title}" if name in recipes else name


def _recipe_card(recipe: Recipe) -> None:
    with st.container(border=True):
        st.markdown(f"**{escape_markdown(recipe.title)}**")
        formula, words = st.columns(2)
        formula.code(recipe.formula, language=None, wrap_lines=True)
        formula.caption(escape_markdown(f"Source: {recipe.citation}"))
        words.caption(escape_markdown(recipe.summary))
        words.caption(escape_markdown(f"Evidence: {recipe.evidence}"))
        if recipe.differs:
            words.caption(escape_markdown(f"Differs from the paper: {recipe.differs}"))


def _pick(
    label: str, field: str, known: list[str], value: str, show: Callable[[str], str] = str, *, new: str = ""
) -> str:
    """A choice among known names. ``new`` is the help of a choice that also takes names that are not known."""
    options = known if value in known else [value, *known]
    picked = st.selectbox(
        label,
        options,
        index=options.index(value),
        format_func=show,
        key=_key(field),
        accept_new_options=bool(new),
        help=new or None,
    )
    return picked or ""


def _inputs(values: specs.Fields, recipe: str) -> specs.Fields:
    models = data.models()
    first, second, third = st.columns(3)
    with first:
        name = st.text_input("Name", values.name, key=_key("name"), max_chars=96)
        steps = st.number_input(
            "Steps", value=values.steps, min_value=1, max_value=1_000_000, step=10, key=_key("steps")
        )
    with second:
        student = _pick(
            "Student",
            "student",
            models,
            values.student,
            new="A built-in demo model, a hub id, or a directory below a model root.",
        )
        lr = st.number_input(
            "Learning rate",
            value=values.lr,
            min_value=0.0,
            max_value=1.0,
            step=1e-4,
            format="%.2e",
            key=_key("lr"),
        )
    with third:
        teacher = _pick("Teacher", "teacher", models, values.teacher, new="Needs the same tokenizer as the student.")
        seed = st.number_input("Seed", value=values.seed, min_value=0, max_value=2**31 - 1, step=1, key=_key("seed"))
    task = _pick(
        "Task",
        "task",
        data.tasks(),
        values.task,
        new="A built-in task, or the path of a .jsonl, .json, .parquet or .csv file below a data root.",
    )
    with st.expander("Everything else, as JSON", icon=":material/data_object:", key=_key("more")):
        advanced = st.text_area(
            "The rest of the spec, as JSON",
            values.advanced,
            key=_key("advanced"),
            height=260,
            help="Any field of the job spec. The inputs above win over the same fields here.",
        )
    return specs.Fields(
        name=name,
        recipe=recipe,
        student=student,
        teacher=teacher,
        task=task,
        steps=int(steps),
        lr=float(lr),
        seed=int(seed),
        advanced=advanced,
    )


def _send(form: specs.Fields, *, go: bool) -> None:
    try:
        spec = specs.spec(form)
        warnings = data.validate(spec)
        made = data.submit(spec, st.session_state[_IDEMPOTENCY]) if go else None
    except specs.FormError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    except data.Problem as problem:
        if problem.is_outage:
            raise
        field = f"**{escape_markdown(problem.param)}** · " if problem.param else ""
        st.error(f"{field}{escape_markdown(problem.detail)}", icon=":material/error:")
        return
    for warning in warnings:
        st.warning(escape_markdown(warning), icon=":material/warning:")
    if made is None:
        st.success("This spec is good to go." if not warnings else "Accepted, with warnings.", icon=":material/check:")
        return
    _expect_another_job()
    st.switch_page("app_pages/overview.py", query_params={"job": made.id})
