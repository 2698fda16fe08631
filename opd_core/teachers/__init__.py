"""Who scores: teachers read the student's own contexts."""

from opd_core.teachers.load import assemble, load_voices, make_teacher
from opd_core.teachers.local import Scores, score_with_ends
from opd_core.teachers.remote import RemoteTeacher
from opd_core.teachers.teacher import Scored, Teacher
from opd_core.teachers.voice import Asked, Voice

__all__ = [
    "Asked",
    "RemoteTeacher",
    "Scored",
    "Scores",
    "Teacher",
    "Voice",
    "assemble",
    "load_voices",
    "make_teacher",
    "score_with_ends",
]
