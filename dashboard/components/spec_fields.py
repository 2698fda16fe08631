"""Widgets for a part of the spec, made from its schema. Each has a place below it for what is wrong with its value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.shaping.schema import Field, default_of
from dashboard.shaping.text import escape_markdown, words

_COLUMNS = 3


@dataclass
class FieldErrors:
    """The places below the widgets, by path: ``show`` puts a sentence at the field that it is about."""

    places: dict[str, DeltaGenerator] = field(default_factory=dict)

    def reserve(self, path: str) -> None:
        self.places[path] = st.empty()

    def show(self, param: str, detail: str) -> None:
        """At the field itself, or at the nearest one around it."""
        path = param
        while path not in self.places and "." in path:
            path = path.rpartition(".")[0]
        if path in self.places:
            self.places[path].error(escape_markdown(detail), icon=":material/error:")


@dataclass(frozen=True)
class Drawing:
    """Draws fields under keys of their own; another ``prefix`` starts from the values given anew.

    ``path`` is the field as the service names it. ``key`` tells the widgets of two alternatives apart, whose fields
    may have the same path.
    """

    prefix: str
    errors: FieldErrors

    def object(self, path: str, fields: Sequence[Field], values: dict[str, Any], key: str = "") -> dict[str, Any]:
        """Simple fields in columns, what has parts of its own below them."""
        key = key or path
        result: dict[str, Any] = {}
        simple = [one for one in fields if one.kind not in ("object", "variant", "variants")]
        if simple:
            with st.grid(_COLUMNS, min_column_width=170):
                for one in simple:
                    with st.container(gap=None):
                        value = values.get(one.name, one.default)
                        result[one.name] = self.widget(f"{key}.{one.name}", one, value)
                        self.errors.reserve(f"{path}.{one.name}")
        for one in fields:
            if one not in simple:
                st.markdown(f"**{escape_markdown(words(one.name))}**", help=_help(one.help))
                value = values.get(one.name, one.default)
                result[one.name] = self.part(f"{path}.{one.name}", one, value, f"{key}.{one.name}")
        return {one.name: result[one.name] for one in fields}

    def part(self, path: str, one: Field, value: Any, key: str = "") -> Any:
        """An object, one of several alternatives, or a list of them."""
        if one.kind == "object":
            return self.object(path, one.fields, value or {}, key)
        if one.kind == "variant":
            return self._variant(path, one, value or {}, key or path)
        return self._variants(path, one, value or [], key or path)

    def widget(self, key: str, one: Field, value: Any, label: str = "") -> Any:
        """The input of a field that has no parts."""
        label, key, about = label or words(one.name), f"{self.prefix}_{key}", _help(one.help)
        if one.kind == "flag":
            return st.toggle(label, bool(value), key=key, help=about)
        if one.kind == "choice":
            options = list(one.choices) if value in one.choices else [value, *one.choices]
            return st.selectbox(label, options, index=options.index(value), key=key, help=about)
        if one.kind in ("integer", "number"):
            return _number(label, one, value, key, about)
        if one.kind == "text":
            text = st.text_input(label, value or "", key=key, help=about, placeholder="none" if one.nullable else "")
            return text.strip() or (None if one.nullable else "")
        return _loose(st.text_input(label, json.dumps(value), key=key, help=about))

    def _variant(self, path: str, one: Field, value: dict[str, Any], key: str) -> dict[str, Any]:
        options = list(one.variants)
        index = options.index(value.get(one.tag, options[0]))
        label, name = words(one.tag), f"{self.prefix}_{key}.{one.tag}"
        chosen = st.selectbox(label, options, index=index, key=name, format_func=words)
        self.errors.reserve(path)
        _caption(one.about[chosen])
        fields = one.variants[chosen]
        values = value if value.get(one.tag) == chosen else default_of(fields)
        return {one.tag: chosen, **self.object(path, fields, values, f"{key}.{chosen}")}

    def _variants(self, path: str, one: Field, value: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
        given = {entry[one.tag]: entry for entry in value}
        label, name = words(one.name), f"{self.prefix}_{key}"
        chosen = st.multiselect(label, list(one.variants), list(given), key=name, format_func=words)
        self.errors.reserve(path)
        result = []
        for number, kind in enumerate(chosen):
            fields = one.variants[kind]
            values = given.get(kind) or default_of(fields)
            with st.container(border=True):
                st.markdown(f"**{escape_markdown(words(kind))}**")
                _caption(one.about[kind])
                result.append({one.tag: kind, **self.object(f"{path}.{number}", fields, values, f"{key}.{kind}")})
        return result


def _number(label: str, one: Field, value: Any, key: str, about: str | None) -> Any:
    cast = int if one.kind == "integer" else float
    return st.number_input(
        label,
        value=None if value is None else cast(value),
        min_value=None if one.minimum is None else cast(one.minimum),
        max_value=None if one.maximum is None else cast(one.maximum),
        step=1 if one.kind == "integer" else (abs(float(value)) / 10 if value else 0.1),
        format="%d" if one.kind == "integer" else "%.6g",
        key=key,
        help=about,
        placeholder="none",
    )


def _loose(text: str) -> Any:
    """What was typed, as JSON if it is that: 4, "auto", [0.9, 0.98]. The service says what is wrong with it."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _help(text: str) -> str | None:
    return escape_markdown(text) if text else None


def _caption(text: str) -> None:
    if text:
        st.caption(escape_markdown(text))
