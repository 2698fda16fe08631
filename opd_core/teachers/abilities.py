"""What a teacher server can do for a method, told to the user when the job starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Abilities:
    """``why_no_candidates``: None where the server scores candidates that it is given."""

    teacher: str
    dialect: str
    top_k: int  # its own favourites that it may be asked for at each token
    why_no_candidates: str | None
    needs: str  # for given candidates to be scored

    @property
    def supports(self) -> dict[str, str]:
        """The values of support.kind that are possible, each with its limit."""
        own, any_k = f"k up to {self.top_k}", "any k"
        found = {"sampled": "", "teacher_top_k": own, "intersection": own, "adaptive": own}
        return found if self.why_no_candidates is not None else {**found, "student_top_k": any_k, "union": own}

    @property
    def sentence(self) -> str:
        """One sentence, or two."""
        supports = ", ".join(f"{kind} ({limit})" if limit else kind for kind, limit in self.supports.items())
        given = "and of candidates that it is given" if self.why_no_candidates is None else "and of nothing else"
        said = (
            f"{self.teacher} ({self.dialect}) gives log-probabilities of the written token, of its top {self.top_k} "
            f"{given}: possible are support {supports}, and every routing that looks at its top {self.top_k} or less"
        )
        if self.why_no_candidates is None:
            return said
        return (
            f"{said}; supports student_top_k and union and gate ta_opd would need given candidates "
            f"({self.why_no_candidates}): {self.needs}"
        )

    def as_data(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "dialect": self.dialect,
            "top_k": self.top_k,
            "candidates": self.why_no_candidates is None,
            "supports": self.supports,
        }
