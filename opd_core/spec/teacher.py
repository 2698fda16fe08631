"""Who scores: another model, the student itself, or several of them; and what a teacher reads beside the prompt."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from opd_core.spec.base import Spec
from opd_core.spec.model import ModelSpec, Quantization, check_reference

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS = ("prompt", "answer", "demonstration", "solution")

Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]{0,63}$")]


class SelfTeacher(Spec):
    """The student as its own teacher."""

    weights: Literal["initial", "current", "ema"] = Field(
        "initial",
        description="initial = the student as it is before the first update; current = as it is now (it must then "
        "read a context that the student does not); ema = a moving average of it.",
    )
    decay: float = Field(
        0.99, gt=0.0, lt=1.0, description="ema only: after each step average = decay average + (1 - decay) student."
    )


class TeacherTokenizer(Spec):
    """The teacher has another tokenizer than the student: it reads the student's text in its own tokens."""

    align: Literal["exact"] = Field(
        "exact",
        description="exact = a token of the student is compared where one token of the teacher has the same bytes at "
        "the same place, over the tokens that both have; other tokens get no feedback.",
    )
    min_aligned: float = Field(
        0.5,
        gt=0.0,
        le=1.0,
        description="The job ends at its start where a smaller share of the first batch's tokens is aligned.",
    )


class Voice(Spec):
    """One teacher: a model, or the student itself."""

    # "self" is no name for a field in Python
    model_config = ConfigDict(serialize_by_alias=True)

    model: str | None = Field(
        None, max_length=1024, examples=["demo/teacher"], description="A hub id, a directory, or a demo/* model."
    )
    revision: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]{1,128}$", description="Commit, tag or branch of a hub model."
    )
    self_: SelfTeacher | None = Field(None, alias="self", description="The student teaches itself.")
    quantization: Quantization = Field(
        "none",
        description="Hold a model's weights in 8 bits (LLM.int8, arXiv 2208.07339: half of bfloat16) or 4 bits (NF4, "
        "arXiv 2305.14314: a good quarter); embedding and head stay as they are. Needs bitsandbytes "
        "where the job runs (pip install 'opd[quantization]').",
    )
    context: str | None = Field(
        None,
        max_length=8192,
        description="What this teacher reads instead of the bare prompt: a text with {prompt} and any of {answer}, "
        "{demonstration} (a worked solution of the data) and {solution} (a right rollout of the same prompt in this "
        "step; where there is none the teacher reads the bare prompt). null = the prompt alone.",
        examples=["{prompt}\n\nA correct solution is: {demonstration}\n\nSolve it in your own words."],
    )

    @field_validator("model")
    @classmethod
    def _reference(cls, value: str | None) -> str | None:
        return None if value is None else check_reference(value)

    @field_validator("context")
    @classmethod
    def _known_places(cls, value: str | None) -> str | None:
        if value is None:
            return None
        found = _PLACEHOLDER.findall(value)
        if unknown := next((name for name in found if name not in PLACEHOLDERS), None):
            allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"there is no {{{unknown}}}; a context may hold {allowed}")
        if "prompt" not in found:
            raise ValueError("a context holds the prompt: write {prompt} where it belongs")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Voice:
        if self.revision is not None and self.model is None:
            raise ValueError("revision is only for a model")
        if self.quantization != "none" and self.model is None:
            raise ValueError("quantization is only for a model")
        if self.self_ is not None and self.self_.weights == "current" and self.context is None:
            raise ValueError(
                "self.weights 'current' without a context is the student itself, which has nothing to teach it: "
                "give a context, or choose 'initial' or 'ema'"
            )
        self._check_sources()
        return self

    def _check_sources(self) -> None:
        if (self.model is None) == (self.self_ is None):
            raise ValueError("give exactly one of model (another model) and self (the student itself)")

    @property
    def places(self) -> frozenset[str]:
        """What its context asks for."""
        return frozenset(_PLACEHOLDER.findall(self.context or ""))

    def reference(self) -> ModelSpec | None:
        """The model to load; None for the student itself."""
        return None if self.model is None else ModelSpec(model=self.model, revision=self.revision)


class MixturePart(Voice):
    """One of several teachers."""

    weight: float = Field(1.0, gt=0.0, le=1e6, description="Relative to the other teachers of the same problem.")
    tags: list[Tag] | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="It speaks for problems of these tags only (task.tag_column); null = for all.",
    )


class TeacherSpec(Voice):
    """A teacher, or a ``mixture`` of several: p = sum of their distributions by weight, among those of a problem's tag.

    One teacher per tag is MOPD's arrangement; weights without tags are an ensemble.
    """

    mixture: list[MixturePart] | None = Field(None, min_length=2, max_length=16)
    endpoint: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
        description="A teacher server that the operator of the service has registered, by its name there.",
    )
    tokenizer: TeacherTokenizer | None = Field(
        None, description="For a model with another tokenizer; null = it must have the student's."
    )

    def _check_sources(self) -> None:
        sources = (self.model, self.self_, self.mixture, self.endpoint)
        if sum(source is not None for source in sources) != 1:
            raise ValueError(
                "give exactly one of model (another model), self (the student), mixture (several) and endpoint (a "
                "server)"
            )
        if self.mixture is not None and self.context is not None:
            raise ValueError("a mixture has a context for each of its parts, none of its own")
        if self.tokenizer is not None and self.model is None:
            raise ValueError("tokenizer is only for a model: the student, a mixture or a server has the student's")

    def voices(self) -> list[tuple[str, Voice]]:
        """Every teacher with the path of its field in the spec."""
        if self.mixture is None:
            return [("teacher", self)]
        return [(f"teacher.mixture.{i}", part) for i, part in enumerate(self.mixture)]
