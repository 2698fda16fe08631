"""Recipes through a running service. tests/training trains all of them; ``make smoke`` sends all of them here."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.recipes import smoke
from opd_core.recipes import load, names
from opd_core.spec import MethodSpec
from tests.integration.conftest import Running

# Together they choose something in every variable and need everything that a method may need.
FEW = ["exopd", "gae-cr-opd", "mopd", "reopold", "rg-opd", "stable-opd", "union-topk"]


@pytest.mark.parametrize("variable", MethodSpec.model_fields)
def test_the_few_touch_every_variable(variable: str) -> None:
    default = getattr(MethodSpec(), variable)
    assert any(getattr(load(name).method, variable) != default for name in FEW)


def test_the_few_need_what_all_need() -> None:
    def needs(some: list[str]) -> set[str]:
        return {need for name in some for need in load(name).needs}

    assert needs(FEW) == needs(names())


@pytest.mark.service
def test_recipes_through_the_service(running: Running) -> None:
    spec = running.spec()
    base: dict[str, Any] = {key: spec[key] for key in ("student", "teacher", "task")}
    base["task"] = base["task"] | {"eval_examples": 0}
    found = {row["name"]: row["problem"] for row in smoke(running.client, FEW, base, steps=3)}
    assert found == dict.fromkeys(FEW)
