"""What ``opd submit --check`` prints."""

from __future__ import annotations

import io

from rich.console import Console

from api import schemas as s
from cli.estimate import tell_estimate

TOLD = s.Estimate(
    rollouts_per_step=10,
    rollouts=4000,
    student_tokens=120_000,
    scored_tokens=120_000,
    flops=3.21e15,
    models=[s.ModelSize(param="student.model", model="a/b", parameters=5)],
    memory=[s.MemoryPart(what="student: weights", gib=1.5), s.MemoryPart(what="teacher: weights", gib=0.25)],
    memory_gib=1.75,
    notes=["Prompts come on top."],
)


def printed(estimate: s.Estimate | None, warnings: list[str] | None = None) -> str:
    out = io.StringIO()
    found = s.Validation(resolved_spec={}, warnings=warnings or [], estimate=estimate)
    tell_estimate(found, Console(file=out, width=100))
    return out.getvalue()


def test_tokens_operations_and_memory_are_printed_part_by_part() -> None:
    lines = [" ".join(line.split()) for line in printed(TOLD, ["it is [biased]"]).splitlines()]
    for wanted in ("rollouts 4,000", "FLOPs 3.2e+15", "teacher: weights 0.25 GiB", "memory 1.75 GiB"):
        assert wanted in lines
    assert lines[0] == "warning: it is [biased]"
    assert lines[-1] == "Prompts come on top."


def test_what_is_not_known_is_named_with_the_reason() -> None:
    unknown = s.ModelSize(param="teacher.model", model="x/[y]", reason="it has not been downloaded")
    told = TOLD.model_copy(update={"flops": None, "memory": None, "memory_gib": None, "models": [unknown]})
    text = " ".join(printed(told).split())
    assert "teacher.model: the size of 'x/[y]' is not known: it has not been downloaded." in text
    assert "FLOPs" not in text
    assert "GiB" not in text


def test_an_older_service_tells_nothing() -> None:
    assert printed(None) == ""
