"""Who scores: teachers read the student's own contexts."""

from opd_core.teachers.load import load_voices
from opd_core.teachers.local import Scores, score_with_ends
from opd_core.teachers.teacher import Scored, Teacher
from opd_core.teachers.voice import Asked, Voice

__all__ = ["Asked", "Scored", "Scores", "Teacher", "Voice", "load_voices", "score_with_ends"]
