"""How a run was examined, from its files."""

from __future__ import annotations

from api import schemas as s
from api.services import Services
from opd_core.runs.rows import Job


def read_evaluation(services: Services, job: Job) -> s.Evaluation | None:
    """None for a job that has not been examined."""
    try:
        return s.Evaluation.model_validate(services.files(job.id).read_json("evaluation.json"))
    except FileNotFoundError:
        return None
