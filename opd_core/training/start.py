"""Where a run begins that goes on from another one (``from``): its student's weights, copied when it was accepted."""

from __future__ import annotations

import tempfile
from pathlib import Path

from opd_core.models import LanguageModel, restore_weights
from opd_core.runs.artifacts import START, CorruptArtifact, RunFiles
from opd_core.spec import JobSpec, UserError


def take_start(spec: JobSpec, files: RunFiles, student: LanguageModel) -> None:
    """Give ``student``, as it was loaded, the weights that the run begins with. Nothing to do without ``from``."""
    if spec.from_ is None:
        return
    if not files.exists(f"{START}/manifest.json"):
        raise UserError(
            "from: the run directory has no copy of that checkpoint: submit the job to the service that has it",
            param="from",
            code="no_start",
        )
    with tempfile.TemporaryDirectory(prefix="opd-start-") as folder:
        try:
            files.fetch(START, Path(folder))
        except CorruptArtifact as error:
            raise UserError(
                f"from: this job's copy of that checkpoint is damaged ({error.detail}); submit the job again",
                param="from",
                code="damaged_start",
            ) from error
        restore_weights(student, Path(folder))
