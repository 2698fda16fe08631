"""Who scores: teachers read the student's own contexts."""

from opd_core.teachers.local import Scores, score, score_with_ends

__all__ = ["Scores", "score", "score_with_ends"]
