"""Every field of the spec becomes something that can be drawn."""

from __future__ import annotations

import pytest

from dashboard.shaping.schema import Field, default_of, fields_of
from opd_core.spec import JobSpec, MethodSpec

JOB = {one.name: one for one in fields_of(JobSpec.model_json_schema())}
METHOD = {one.name: one for one in fields_of(MethodSpec.model_json_schema())}


def inside(fields: tuple[Field, ...]) -> list[Field]:
    found = []
    for one in fields:
        found += [one, *inside(one.fields)]
        for variant in one.variants.values():
            found += inside(variant)
    return found


def test_the_kinds_of_fields() -> None:
    optimizer = {one.name: one for one in JOB["optimizer"].fields}
    assert (optimizer["lr"].kind, optimizer["lr"].default, optimizer["lr"].maximum) == ("number", 1e-5, 1.0)
    assert (optimizer["decay"].kind, optimizer["decay"].choices[0]) == ("choice", "linear")
    assert optimizer["betas"].kind == "json"
    assert (JOB["from"].kind, JOB["from"].nullable, JOB["from"].default) == ("json", True, None)
    assert (METHOD["objective"].kind, METHOD["objective"].tag) == ("variant", "route")
    assert METHOD["gates"].kind == "variants"
    assert "tip" in METHOD["gates"].variants
    assert "TIP" in METHOD["gates"].about["tip"]
    stop = next(one for one in METHOD["gates"].variants["window"] if one.name == "stop")
    assert (stop.kind, stop.nullable, stop.default, stop.minimum) == ("integer", True, None, 1)


def test_every_choice_has_its_default_among_them_and_every_number_within_its_bounds() -> None:
    for one in inside((*JOB.values(), *METHOD.values())):
        if one.kind == "choice" and one.default is not None:
            assert one.default in one.choices, one.name
        if one.kind in ("integer", "number") and one.default is not None:
            assert one.minimum is None or one.default >= one.minimum, one.name
            assert one.maximum is None or one.default <= one.maximum, one.name


@pytest.mark.parametrize("tag", list(METHOD["routing"].variants))
def test_the_defaults_of_an_alternative_are_the_services(tag: str) -> None:
    alone = MethodSpec.model_fields["routing"].annotation
    from pydantic import TypeAdapter

    made = TypeAdapter(alone).validate_python({"kind": tag}).model_dump(mode="json")
    assert {"kind": tag, **default_of(METHOD["routing"].variants[tag])} == made
