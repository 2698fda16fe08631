"""JSON schemas of the spec as things that can be drawn: one ``Field`` per property, whatever the spec grows to hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Schema = dict[str, Any]
Kind = Literal["choice", "flag", "integer", "number", "text", "object", "variant", "variants", "json"]

_SIMPLE: dict[str, Kind] = {"boolean": "flag", "integer": "integer", "number": "number", "string": "text"}


@dataclass(frozen=True)
class Field:
    """One property. ``fields`` are an object's; ``variants`` those of each alternative, chosen by ``tag``."""

    name: str
    kind: Kind
    default: Any = None
    help: str = ""
    nullable: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    fields: tuple[Field, ...] = ()
    tag: str = ""
    variants: dict[str, tuple[Field, ...]] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)


def fields_of(schema: Schema, root: Schema | None = None) -> tuple[Field, ...]:
    """The properties of an object's schema; ``root`` holds its ``$defs``."""
    root = root or schema
    return tuple(_field(name, one, root) for name, one in schema.get("properties", {}).items())


def default_of(fields: tuple[Field, ...]) -> dict[str, Any]:
    """The object that has every field at its default; required ones are left out."""
    return {one.name: one.default for one in fields if one.default is not None or one.nullable}


def _field(name: str, schema: Schema, root: Schema) -> Field:
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    nullable = len(options) < len(schema.get("anyOf", ()))
    inner = _resolved(options[0] if len(options) == 1 else schema, root)
    known = {
        "name": name,
        "default": schema.get("default"),
        "help": schema.get("description") or inner.get("description", ""),
        "nullable": nullable,
    }
    if "discriminator" in inner:
        return Field(kind="variant", **known, **_alternatives(inner, root))
    if inner.get("type") == "array" and "discriminator" in inner.get("items", {}):
        return Field(kind="variants", **known, **_alternatives(inner["items"], root))
    if inner.get("properties") and nullable and known["default"] is None:
        return Field(kind="json", **known)  # left out as a whole, or written as a whole
    if inner.get("properties"):
        fields = fields_of(inner, root)
        return Field(kind="object", **known | {"default": known["default"] or default_of(fields)}, fields=fields)
    if "enum" in inner:
        return Field(kind="choice", **known, choices=tuple(inner["enum"]))
    if "const" in inner:
        return Field(kind="choice", **known, choices=(inner["const"],))
    kind = _SIMPLE.get(inner.get("type", ""), "json")
    return Field(
        kind=kind,
        **known,
        minimum=inner.get("minimum", inner.get("exclusiveMinimum")),
        maximum=inner.get("maximum", inner.get("exclusiveMaximum")),
    )


def _alternatives(schema: Schema, root: Schema) -> dict[str, Any]:
    tag = schema["discriminator"]["propertyName"]
    resolved = {name: _at(ref, root) for name, ref in schema["discriminator"]["mapping"].items()}
    return {
        "tag": tag,
        "variants": {
            name: tuple(one for one in fields_of(found, root) if one.name != tag) for name, found in resolved.items()
        },
        "about": {name: found.get("description", "") for name, found in resolved.items()},
    }


def _resolved(schema: Schema, root: Schema) -> Schema:
    return {**_at(schema["$ref"], root), **schema} if "$ref" in schema else schema


def _at(ref: str, root: Schema) -> Schema:
    found: Schema = root["$defs"][ref.rsplit("/", 1)[-1]]
    return found
