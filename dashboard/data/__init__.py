"""Every call to the API, with how long its answer may be reused.

Pages and components call these functions only. A failed call raises ``Problem``, never anything else.
"""

from __future__ import annotations

from dashboard.data.actions import cancel, delete, pause, resume, save, submit, validate
from dashboard.data.catalogue import models, recipes, schema, tasks
from dashboard.data.comparison import compare, shared_problems
from dashboard.data.connection import Problem, api_url, check, forget
from dashboard.data.fleet import failed_attempts, queues, workers
from dashboard.data.questions import probe, question, replan
from dashboard.data.records import gates, quantities, returns, routing, sequence, sequences, steps, suppressed
from dashboard.data.runs import attempts, checkpoints, events, export, health, job, jobs, memory, metrics, report, trend

__all__ = [
    "Problem",
    "api_url",
    "attempts",
    "cancel",
    "check",
    "checkpoints",
    "compare",
    "delete",
    "events",
    "export",
    "failed_attempts",
    "forget",
    "gates",
    "health",
    "job",
    "jobs",
    "memory",
    "metrics",
    "models",
    "pause",
    "probe",
    "quantities",
    "question",
    "queues",
    "recipes",
    "replan",
    "report",
    "resume",
    "returns",
    "routing",
    "save",
    "schema",
    "sequence",
    "sequences",
    "shared_problems",
    "steps",
    "submit",
    "suppressed",
    "tasks",
    "trend",
    "validate",
    "workers",
]
