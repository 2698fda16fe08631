"""Who writes the states of training, how much and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from opd_core.spec.base import Spec


class Writers(Spec):
    """Shares of the rows of a step, drawn row by row. GKD's lambda is the student's share (arXiv 2306.13649)."""

    student: float = Field(1.0, ge=0.0, le=1.0)
    teacher: float = Field(0.0, ge=0.0, le=1.0, description="Rows that the teacher writes.")
    data: float = Field(0.0, ge=0.0, le=1.0, description="Worked solutions of the task (task.demonstration_column).")

    @model_validator(mode="after")
    def _sum(self) -> Writers:
        total = self.student + self.teacher + self.data
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the shares of student, teacher and data must add up to 1, these give {total:g}")
        return self


class Prefix(Spec):
    """The student goes on from the beginning of somebody else's solution, which takes no force and no time.

    The given share of that solution shrinks linearly to nothing over the first ``until`` of the run.
    """

    of: Literal["teacher", "data"] = "data"
    share: float = Field(0.5, gt=0.0, lt=1.0, description="Of the solution's tokens, at the start of the run.")
    until: float = Field(0.5, gt=0.0, le=1.0, description="Share of the run after which the student starts alone.")


class Replay(Spec):
    """Rows of earlier steps beside fresh ones, with the probabilities under which they were sampled."""

    share: float = Field(0.5, gt=0.0, lt=1.0, description="Of the rows of a step, once there are old ones.")
    max_age: int = Field(4, ge=1, le=64, description="Steps after which a row is dropped.")


class RolloutSpec(Spec):
    """Who writes, how much and how."""

    prompts_per_step: int = Field(32, ge=1, le=65_536)
    samples_per_prompt: int = Field(1, ge=1, le=256)
    max_new_tokens: int = Field(48, ge=1, le=131_072)
    temperature: float = Field(1.0, gt=0.0, le=10.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    cache: Literal["auto", "growing", "fixed"] = Field(
        "auto",
        description="The key-value cache of the student. fixed: one size from the first token, so that a GPU replays "
        "one recorded step per token, several times faster. auto: fixed on a GPU where the model's family can, else "
        "growing.",
    )
    endpoint: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
        description="A vLLM server that the operator of the service has registered, by its name there: it writes the "
        "student's rows with the weights that it is handed before each step. null = the trainer writes them itself.",
    )
    written_by: Writers = Writers()
    teacher_mix: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="The student's rows are sampled from mix x teacher + (1 - mix) x student, token by token (MiniLLM, "
        "arXiv 2306.08543, took 0.2).",
    )
    prefix: Prefix | None = None
    replay: Replay | None = None

    @property
    def on_policy(self) -> bool:
        """Whether every row is the student's own and fresh."""
        return self.written_by.student == 1.0 and self.teacher_mix == 0.0 and self.replay is None

    @property
    def teacher_writes(self) -> bool:
        """Whether the teacher has to generate text."""
        by_teacher = self.prefix is not None and self.prefix.of == "teacher"
        return self.written_by.teacher > 0 or self.teacher_mix > 0 or by_teacher

    @property
    def data_writes(self) -> bool:
        """Whether worked solutions of the data are needed."""
        return self.written_by.data > 0 or (self.prefix is not None and self.prefix.of == "data")
