"""Job specs from files: YAML or JSON, from a path or standard input, with ``--set`` overrides."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from opd_core.spec import UserError

STDIN = "-"


def read(source: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """The spec in a file (``-`` = standard input) under ``key.path=value`` overrides. Raises UserError."""
    spec = _parse(_text(source), source)
    override(spec, overrides or [])
    return spec


def override(spec: dict[str, Any], assignments: list[str]) -> None:
    """Lay ``key.path=value`` assignments over a spec, in place. Raises UserError."""
    for assignment in assignments:
        _override(spec, assignment)


def overrides(assignments: list[str]) -> dict[str, Any]:
    """``key.path=value`` assignments as a mapping of their own. Raises UserError."""
    mapping: dict[str, Any] = {}
    override(mapping, assignments)
    return mapping


def _text(source: str) -> str:
    if source == STDIN:
        return sys.stdin.read()
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"SPEC: cannot read {source!r}: {reason}", code="unreadable_spec") from error


def _parse(text: str, source: str) -> dict[str, Any]:
    name = "standard input" if source == STDIN else repr(source)
    try:
        # JSON first: YAML 1.1 reads JSON's 1e-3 as a string.
        spec = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except json.JSONDecodeError:
        spec = _yaml(text, name)  # a flow mapping such as {name: demo}
    except yaml.YAMLError as error:
        raise _not_yaml(error, name) from error
    if not isinstance(spec, dict):
        raise UserError(f"SPEC: {name} must hold a mapping such as 'name: my-run', not {type(spec).__name__}")
    return spec


def _yaml(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _not_yaml(error, name) from error


def _not_yaml(error: yaml.YAMLError, name: str) -> UserError:
    return UserError(f"SPEC: {name} is neither YAML nor JSON: {' '.join(str(error).split())}")


def _override(spec: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override!r}: write it as key=value, for example --set optimizer.lr=0.001")
    *parents, last = keys
    target = spec
    for key in parents:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise UserError(f"--set {path}: {key} is not a mapping in this spec")
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {path}: the value {text!r} is not YAML") from error
