"""How a run was examined, problem by problem."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.base import Schema


class Examination(Schema):
    """Greedy solutions of the held-out problems, one entry per problem in every list."""

    correct: list[bool]
    length: list[int] = Field(description="Tokens of each solution.")
    truncated: list[bool] = Field(description="It met the length cap before it ended.")
    samples_solved: list[int] | None = Field(
        None, description="Of schedule.pass_at_k samples of each problem, how many are right; null without them."
    )


class Evaluation(Schema):
    """Two runs of one seed are examined on the same problems, so that they can be compared problem by problem."""

    object: Literal["evaluation"] = "evaluation"
    problems: list[int] = Field(description="Ids of the held-out problems.")
    teacher: list[bool] | None = Field(description="Whether the teacher solves each; null where it was not examined.")
    before: Examination = Field(description="The student before the first step.")
    after: Examination | None = Field(description="The student after the last step; null until then.")
