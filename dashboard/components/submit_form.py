"""Start a run: every field of the spec, made from its schema; check; submit; or take the command elsewhere."""

from __future__ import annotations

import uuid
from typing import Any

import streamlit as st

from api.schemas import Estimate, Recipe
from dashboard import data
from dashboard.components import pages
from dashboard.components.recipe_gallery import recipe_card
from dashboard.components.spec_fields import Drawing, FieldErrors
from dashboard.shaping import estimates, specs
from dashboard.shaping.schema import Field, fields_of
from dashboard.shaping.text import escape_markdown, words

_ESSENTIAL = {"schedule": "steps", "optimizer": "lr", "resources": "queue", "student": "model"}
_NUMBERS = (("schedule", "steps", "Steps"), ("optimizer", "lr", "Learning rate"), ("resources", "queue", "Queue"))
_NOT_DRAWN = ("name", "from", "recipe", "method", "seed", "teacher")
_IDEMPOTENCY, _LAST = "new_idempotency", "new_last"


def submit_form(start: specs.Spec, method: dict[str, Any], recipe: Recipe, generation: str) -> specs.Spec:
    """The form over a starting spec and its complete method; opens the new run after a successful submit.

    Another ``generation`` is another set of inputs. The starting values are the inputs' defaults, not their state: a
    click that overtakes a running script makes Streamlit forget state that it was given but has not drawn, and the
    form would submit zeros. Returns the spec as it stands.
    """
    schema = data.schema()
    fields = fields_of(schema.job)
    drawing = Drawing(f"new_{generation}", FieldErrors())
    recipe_card(recipe)
    origin = _origin(drawing, start)
    values = _essentials(drawing, fields, start)
    drawing.errors.reserve("method")
    filled = _method(drawing, fields_of(schema.method), method)
    _everything_else(drawing, fields, start, values)
    if origin is not None:
        values["from"] = origin
    spec = specs.build(values, filled, recipe.name, recipe.method, fields, recipe.brings)
    with st.container(horizontal=True):
        check = st.button("Validate", icon=":material/fact_check:", key="new_validate")
        go = st.button("Submit", type="primary", icon=":material/rocket_launch:", key="new_submit")
    if check or go:
        _send(spec, drawing.errors, go=go)
    _elsewhere(spec)
    return spec


def _origin(drawing: Drawing, start: specs.Spec) -> dict[str, Any] | None:
    """Another run's checkpoint that the student starts from, unless that is switched off."""
    source: dict[str, Any] | None = start.get("from")
    if source is None:
        return None
    label = f"The student starts from checkpoint {source.get('checkpoint') or 'newest'} of run {source['job']}"
    kept = st.toggle(
        escape_markdown(label), True, key=f"{drawing.prefix}_from", help="Off: from its model, as named below."
    )
    drawing.errors.reserve("from")
    return source if kept else None


def _essentials(drawing: Drawing, fields: tuple[Field, ...], start: specs.Spec) -> dict[str, Any]:
    """What nearly everybody sets, on top. The result holds one entry per section that was touched."""
    sections = {one.name: {inner.name: inner for inner in one.fields} for one in fields}
    models = data.models()
    with st.grid(3, min_column_width=220):
        with st.container(gap=None):
            name = st.text_input("Name", str(start["name"]), key=f"{drawing.prefix}_name", max_chars=96)
            drawing.errors.reserve("name")
        student = _pick(drawing, "student.model", models, start, "A demo model, a hub id, or a directory below a root.")
        teacher = _teacher(drawing, models, start)
        with st.container(gap=None):
            task = _task(drawing, start)
        drawn = {}
        for section, inner, label in _NUMBERS:
            one = sections[section][inner]
            with st.container(gap=None):
                value = start.get(section, {}).get(inner, one.default)
                drawn[section] = {inner: drawing.widget(f"{section}.{inner}", one, value, label)}
                drawing.errors.reserve(f"{section}.{inner}")
        seed = next(one for one in fields if one.name == "seed")
        with st.container(gap=None):
            number = drawing.widget("seed", seed, start.get("seed", seed.default), "Seed")
            drawing.errors.reserve("seed")
    models_of = {"student": {"model": student}, "teacher": teacher}
    return {"name": name.strip(), **models_of, "task": task, **drawn, "seed": number}


def _teacher(drawing: Drawing, models: list[str], start: specs.Spec) -> Any:
    """Another model; a teacher of another kind is shown as it is written."""
    if (start.get("teacher") or {}).get("model"):
        return {"model": _pick(drawing, "teacher.model", models, start, "Needs the same tokenizer as the student.")}
    with st.container(gap=None):
        about = "The student itself, several teachers, or a server, as JSON: docs/teachers-and-states.md."
        given = drawing.widget("teacher", Field("teacher", "json", help=about), start.get("teacher"), "Teacher")
        drawing.errors.reserve("teacher")
    return given


def _pick(drawing: Drawing, path: str, known: list[str], start: specs.Spec, about: str) -> str:
    """A choice among known names that also takes others."""
    role, inner = path.split(".")
    value = str(start[role][inner])
    options = known if value in known else [value, *known]
    with st.container(gap=None):
        picked = st.selectbox(
            role.capitalize(),
            options,
            index=options.index(value),
            key=f"{drawing.prefix}_{role}",
            accept_new_options=True,
            help=about,
        )
        drawing.errors.reserve(path)
    return (picked or "").strip()


def _task(drawing: Drawing, start: specs.Spec) -> dict[str, Any]:
    known, value = data.tasks(), str(start["task"].get("name") or start["task"].get("dataset") or "")
    options = known if value in known else [value, *known]
    picked = st.selectbox(
        "Task",
        options,
        index=options.index(value),
        key=f"{drawing.prefix}_task",
        accept_new_options=True,
        help="A built-in task, or the path of a .jsonl, .json, .parquet or .csv file below a data root.",
    )
    drawing.errors.reserve("task")
    task = (picked or "").strip()
    return {"name": task, "dataset": None} if task.startswith("demo/") else {"name": None, "dataset": task}


def _method(drawing: Drawing, fields: tuple[Field, ...], method: dict[str, Any]) -> dict[str, Any]:
    """Every variable of the method."""
    st.subheader("Method", anchor=False, help="What you change here overrides the recipe, variable by variable.")
    filled = {}
    with st.grid(2, min_column_width=420):
        for one in fields:
            value = method.get(one.name, one.default)
            title = f"**{words(one.name).capitalize()}** · {_gist(one, value)}"
            with st.expander(title, key=f"{drawing.prefix}_{one.name}"):
                if one.help:
                    st.caption(escape_markdown(one.help))
                filled[one.name] = drawing.part(f"method.{one.name}", one, value)
    return filled


def _gist(one: Field, value: Any) -> str:
    """What the recipe has here, in a word."""
    if one.kind == "variants":
        return escape_markdown(", ".join(words(entry[one.tag]) for entry in value) or "none")
    first = one.tag or one.fields[0].name
    return escape_markdown(words(str(value.get(first, ""))))


def _everything_else(drawing: Drawing, fields: tuple[Field, ...], start: specs.Spec, values: dict[str, Any]) -> None:
    """The rest of the spec, section by section; fills ``values``."""
    st.subheader("Job", anchor=False)
    with st.grid(2, min_column_width=420):
        for one in fields:
            if one.name == "metadata":
                with st.expander("**Metadata**", key=f"{drawing.prefix}_metadata_more"):
                    values["metadata"] = drawing.widget("metadata", one, start.get("metadata") or {})
                    drawing.errors.reserve("metadata")
            elif one.name not in _NOT_DRAWN and one.kind != "object":
                with st.expander(f"**{escape_markdown(words(one.name).capitalize())}**"):
                    values[one.name] = drawing.widget(one.name, one, start.get(one.name, one.default))
                    drawing.errors.reserve(one.name)
            elif one.name not in _NOT_DRAWN:
                values[one.name] = {**values.get(one.name, {}), **_section(drawing, one, start)}


def _section(drawing: Drawing, one: Field, start: specs.Spec) -> dict[str, Any]:
    """A section of the spec without what is drawn above."""
    drawn = {_ESSENTIAL.get(one.name)} | ({"name", "dataset"} if one.name == "task" else set())
    rest = tuple(inner for inner in one.fields if inner.name not in drawn)
    with st.expander(f"**{words(one.name).capitalize()}**", key=f"{drawing.prefix}_{one.name}_more"):
        if one.help:
            st.caption(escape_markdown(one.help))
        return drawing.object(one.name, rest, start.get(one.name) or one.default or {})


def _send(spec: specs.Spec, errors: FieldErrors, *, go: bool) -> None:
    try:
        found = data.validate(spec)
        made = data.submit(spec, _key_of(spec)) if go else None
    except data.Problem as problem:
        if problem.is_outage:
            raise
        field = f"**{escape_markdown(problem.param)}** · " if problem.param else ""
        st.error(f"{field}{escape_markdown(problem.detail)}", icon=":material/error:")
        if problem.param:
            errors.show(problem.param, problem.detail)
        return
    for warning in found.warnings:
        st.warning(escape_markdown(warning), icon=":material/warning:")
    if made is None:
        said = "Accepted, with warnings." if found.warnings else "This spec is good to go."
        st.success(said, icon=":material/check:")
        if found.estimate is not None:
            _takes(found.estimate)
        return
    del st.session_state[_IDEMPOTENCY]
    pages.go(pages.OVERVIEW, job=made.id)


def _takes(told: Estimate) -> None:
    """What the job may take: tokens, operations, memory."""
    with st.container(horizontal=True, key="new_estimate"):
        for label, value, about in estimates.figures(told):
            st.metric(label, value, help=about, border=True)
    if told.memory is not None:
        with st.expander("Memory, part by part"):
            st.dataframe(estimates.parts(told), hide_index=True)
    for sentence in (*told.unknown, *told.notes):
        st.caption(escape_markdown(sentence))


def _key_of(spec: specs.Spec) -> str:
    """A second click on Submit makes no second run; a changed spec does."""
    if st.session_state.get(_LAST) != spec or _IDEMPOTENCY not in st.session_state:
        st.session_state[_LAST], st.session_state[_IDEMPOTENCY] = spec, uuid.uuid4().hex
    return str(st.session_state[_IDEMPOTENCY])


def _elsewhere(spec: specs.Spec) -> None:
    """The same job from a script or a terminal."""
    with st.expander("This run as JSON, as a curl command, as an opd command", icon=":material/data_object:"):
        json_tab, curl_tab, command_tab = st.tabs(["JSON", "curl", "opd submit"])
        json_tab.code(specs.as_json(spec), language="json")
        curl_tab.code(specs.as_curl(spec, data.api_url()), language="bash", wrap_lines=True)
        command_tab.code(specs.as_command(spec), language="bash")
