"""The answer to "what if this step had been trained under another method": records in, plans out."""

from __future__ import annotations

import json
from typing import Any

from opd_core.diagnostics.recorded import Recorded
from opd_core.diagnostics.records import BatchFacts
from opd_core.diagnostics.replan import replan
from opd_core.objective.feedback import MissingFeedback
from opd_core.runs import records
from opd_core.runs.artifacts import RunFiles
from opd_core.runs.questions import material_file
from opd_core.spec import JobSpec, MethodSpec, UserError
from opd_core.training.step import gate_seed


def what_if(files: RunFiles, spec: JobSpec, question_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """``request``: step, method (complete) and sequences, numbers of those that the answer is about.

    All recorded sequences are planned together, so that what a method takes from the batch has as much of it as there
    is. Raises UserError.
    """
    step, wanted = int(request["step"]), set(request["sequences"])
    rows = [row for row in records.decode(files.read_bytes(material_file(question_id))) if row["length"]]
    if not any(row["n"] in wanted for row in rows):
        raise UserError(f"sequences: the student wrote nothing in those of step {step}", param="sequences")
    recorded = Recorded(rows, _facts(files, spec, step, rows[0]), complete=rows[0]["batch"] is not None)
    method = MethodSpec.model_validate(request["method"])
    try:
        found = replan(recorded, own=spec.method_spec(), method=method, gate_seed=gate_seed(spec.seed, step))
    except MissingFeedback as error:
        raise UserError(
            f"method: {error}; only a run whose own method asks for it records that",
            param="method",
            code="not_recorded",
        ) from error
    pairs = [(row, new) for row, new in zip(rows, found.rows, strict=True) if row["n"] in wanted]
    return {**found.as_dict(), "rows": [{"recorded": {**row, "batch": None}, **new} for row, new in pairs]}


def _facts(files: RunFiles, spec: JobSpec, step: int, row: dict[str, Any]) -> BatchFacts:
    """What is true of the whole step; of an earlier version's records as much as follows from the spec."""
    if row["batch"] is not None:
        return BatchFacts.read(row["batch"])
    objective, credit = spec.method_spec().objective, spec.method_spec().credit
    return BatchFacts(
        sequences=spec.rollout.prompts_per_step * spec.rollout.samples_per_prompt,
        vocabulary=len(json.loads(files.read_bytes("vocabulary.json"))),
        temperature=objective.temperature,
        teacher_temperature=objective.effective_teacher_temperature,
        eos_ids=(),
        special_ids=(),
        progress=(step - 1) / spec.schedule.steps,
        critic_ready=credit.estimator != "gae" or step > credit.critic.warmup_steps,
        running={},
    )
