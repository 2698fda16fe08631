"""Who scores: teachers read the student's own contexts."""

from opd_core.teachers.local import score

__all__ = ["score"]
