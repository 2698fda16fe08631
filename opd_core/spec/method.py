"""The method: one field per variable of the taxonomy of arXiv 2606.22793.

A method is a point in this space; a recipe is a named point; a job overrides single variables.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from opd_core.spec import combinations
from opd_core.spec.base import Spec
from opd_core.spec.variables.aggregation import Aggregation
from opd_core.spec.variables.credit import Credit
from opd_core.spec.variables.gates import Gate
from opd_core.spec.variables.importance import Importance
from opd_core.spec.variables.objective import DirectObjective, Objective
from opd_core.spec.variables.regularizers import Regularizer
from opd_core.spec.variables.routing import PlainRouting, Routing
from opd_core.spec.variables.shaping import Shaping
from opd_core.spec.variables.support import FullSupport, Support


class MethodSpec(Spec):
    """One on-policy distillation method. Every combination that cannot learn is refused with the reason."""

    objective: Objective = DirectObjective()
    support: Support = FullSupport()
    shaping: Shaping = Shaping()
    credit: Credit = Credit()
    routing: Routing = PlainRouting()
    gates: tuple[Gate, ...] = Field((), max_length=8, description="They multiply, in this order.")
    importance: Importance = Importance()
    regularizers: tuple[Regularizer, ...] = Field((), max_length=8, description="They add up.")
    aggregation: Aggregation = Aggregation()

    @model_validator(mode="after")
    def _combinations_that_cannot_learn(self) -> MethodSpec:
        if reason := combinations.refusal(self):
            raise ValueError(reason)
        return self

    def warnings(self) -> list[str]:
        """Known biases of an accepted combination, in sentences that are stored on the run."""
        return combinations.warnings(self)

    @property
    def shift(self) -> str | None:
        """Why the update does not vanish where student equals teacher; None where it does."""
        return combinations.shift(self)

    @property
    def needs(self) -> tuple[str, ...]:
        """What the method needs beside the teacher's scores: reference, reward, group, origin, critic."""
        return combinations.needs(self)

    def distillation(self) -> MethodSpec:
        """The method without what is not the teacher's: regularizers and verifier."""
        return self.model_copy(update={"regularizers": ()})
