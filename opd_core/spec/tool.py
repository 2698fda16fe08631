"""A tool that answers the student while it writes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from opd_core.spec.base import Spec

TOOL_TASK = "demo/tools"
"""The built-in task that has a tool without being asked."""


class Tool(Spec):
    """Its answers are context for what the student writes next; they take no force and no time."""

    kind: Literal["calculator"] = Field(
        "calculator",
        description="calculator: works out + - * / and brackets. A chat model asks for it with a tool_call block in "
        "its turn and is answered by the chat template's tool message; demo/tools-student asks with the word calc.",
    )
    turns: int = Field(8, ge=1, le=64, description="Answers in one rollout at most; a call beyond them ends it.")
