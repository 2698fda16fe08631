"""Parameters that several endpoints share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query

from api.problems import not_found
from api.services import ServicesDep
from opd_core.runs.ids import ID_PATTERN, is_id
from opd_core.runs.rows import Job

# SQL integers: larger numbers are nobody's step.
MAX_INT = 2**31 - 1

# The pattern documents the form. An id of another form is answered with 404, like any that does not exist.
JobId = Annotated[
    str,
    Path(
        description="A job's id.",
        json_schema_extra={"pattern": ID_PATTERN},
        examples=["job_01m837yra7fgfac0fh2b4qwbpp"],
    ),
]
Limit = Annotated[int, Query(ge=1, le=100, description="Page size.")]
Step = Annotated[int, Path(ge=0, le=MAX_INT)]


def find_job(job_id: JobId, services: ServicesDep) -> Job:
    """The job of the path; 404 when there is none."""
    found = services.store.get_job(job_id) if is_id(job_id) else None
    if found is None:
        raise not_found(f"there is no job {job_id!r}", param="job_id")
    return found


JobDep = Annotated[Job, Depends(find_job)]
