"""A run with far more records than the demo has, written straight into the run directory: numbers are random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from opd_core import recipes
from opd_core.runs import profiles, records
from opd_core.runs.artifacts import RunFiles, job_files
from opd_core.runs.database import connect
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from opd_core.spec import JobSpec

VOCABULARY = 1000
_SPEC: dict[str, Any] = {
    "name": "large",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
    "recipe": "cr-opd",
    "schedule": {"steps": 100_000},
}
_FIELDS = ("log_ratio", "return", "advantage", "coefficient", "kl", "entropy_student", "entropy_teacher", "gate")


class LargeRun:
    """A claimed job that looks like a running one; nobody trains it."""

    def __init__(self, settings: Settings) -> None:
        self.store = RunStore(connect(settings.database_url))
        spec = JobSpec.model_validate(_SPEC)
        self.id = self.store.create_job(spec, recipes.resolve(spec)).id
        claim = self.store.claim(self.id, "benchmark", 3600.0)
        assert claim is not None
        self.store.set_phase(self.id, claim.attempt, "training", "running")
        self.files: RunFiles = job_files(settings.artifacts_url, self.id)
        self.files.write_json("vocabulary.json", [f" word{i}" for i in range(VOCABULARY)])

    def add_profiles(self, first: int, last: int) -> None:
        """Profiles of steps first..last: small, so that a thousand steps are seconds."""
        for start in range(first, last + 1, 20):
            stop = min(start + 19, last)
            rows = [row for step in range(start, stop + 1) for row in profile_rows(step)]
            profiles.write_part(self.files, rows, start, stop, 1)

    def add_records(self, first: int, last: int, *, sequences: int, length: int, top_k: int) -> None:
        """Token records of steps first..last, a part each; the numbers of all steps are the same, so that a thousand
        steps are minutes.
        """
        drawn = [records.to_table([sequence(first, n, length, top_k)]) for n in range(sequences)]
        column = records.SCHEMA.get_field_index("step")
        for step in range(first, last + 1):
            its = pa.array([step], records.SCHEMA.field("step").type)
            groups = [table.set_column(column, records.SCHEMA.field("step"), its) for table in drawn]
            records.write_tables(self.files, groups, step, step, 1)


def profile_rows(step: int) -> list[dict[str, Any]]:
    """The profiles of one step."""
    return [_profile(step, field) for field in _FIELDS]


def _profile(step: int, field: str) -> dict[str, Any]:
    draw = np.random.default_rng((step, len(field)))
    return {
        "step": step,
        "attempt": 1,
        "field": field,
        "bin_width": 16,
        "tokens": [100] * profiles.BINS,
        "mean": draw.normal(size=profiles.BINS).tolist(),
        "quantiles": np.sort(draw.normal(size=len(profiles.QUANTILES))).tolist(),
        "histogram": draw.integers(0, 50, len(profiles.EDGES) - 1).tolist(),
    }


def sequence(step: int, n: int, length: int, top_k: int) -> dict[str, Any]:
    """A record of ``length`` tokens."""
    draw = np.random.default_rng((step, n))
    numbers = {name: draw.normal(size=length).tolist() for name in records.TOKEN_FLOATS}
    written = draw.integers(0, VOCABULARY, length).tolist()
    ids = draw.integers(0, VOCABULARY, (length, top_k)).tolist()
    logp = draw.normal(-3.0, 1.0, (length, top_k)).tolist()
    names = ("student_top_logp", "student_top_teacher_logp", "teacher_top_logp", "teacher_top_student_logp")
    return {
        "step": step,
        "n": n,
        "attempt": 1,
        "problem": n,
        "prompt": "a prompt",
        "completion": " ".join(["word"] * length),
        "answer": "42",
        "correct": True,
        "truncated": False,
        "reason": "uniform",
        "length": length,
        "token_ids": written,
        **numbers,
        "gate_names": ["tip"],
        "gate_weights": draw.integers(0, 2, (length, 1)).astype(float).tolist(),
        "component_names": ["log_ratio"],
        "component_values": draw.normal(size=(length, 1)).tolist(),
        "student_top_ids": ids,
        "teacher_top_ids": ids,
        **dict.fromkeys(names, logp),
        "route_ids": [[]] * length,
        "route_weights": [[]] * length,
        **_probed(draw, written),
    }


def _probed(draw: np.random.Generator, written: list[int]) -> dict[str, Any]:
    """One state in 64 is probed, as a step of some thousand tokens has it; the sampled token comes first."""
    states = [i % 64 == 0 for i in range(len(written))]
    others = [draw.integers(0, VOCABULARY, 15).tolist() if probed else None for probed in states]
    changes = [draw.normal(0.0, 0.01, 16).tolist() if probed else None for probed in states]
    ids = [None if found is None else [token, *found] for token, found in zip(written, others, strict=True)]
    return {"probe_ids": ids, "probe_predicted": changes, "probe_realised": changes}
