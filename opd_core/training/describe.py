"""Who took part in a run, for its report."""

from __future__ import annotations

from typing import Any

import torch

from opd_core.models import LanguageModel, adapter_weights, count_weights
from opd_core.tasks import Task
from opd_core.teachers import RemoteTeacher, Teacher, Voice


def describe_models(student: LanguageModel, teacher: Teacher) -> dict[str, Any]:
    """Names, revisions and sizes."""
    return {"student": _model(student), "teacher": _teacher(teacher), "vocabulary": student.vocab_size}


def describe_task(task: Task) -> dict[str, Any]:
    """What was trained and examined on."""
    return {
        "name": task.name,
        "train_problems": len(task.train),
        "eval_problems": len(task.eval),
        "split": "held out; no prompt text is in both",
    }


def _teacher(teacher: Teacher) -> dict[str, Any]:
    """One teacher as a model; several with what sets them apart."""
    if isinstance(teacher, RemoteTeacher):
        return {"name": teacher.name, "top_k": teacher.server.endpoint.top_k, "parameters": None}
    described = [{**_model(voice.lm), **_arrangement(voice)} for voice in teacher.voices]
    if len(described) == 1:
        return described[0]
    return {"name": " + ".join(one["name"] for one in described), "mixture": described}


def _arrangement(voice: Voice) -> dict[str, Any]:
    told = {
        "context": voice.context,
        "decay": voice.decay,
        "weight": None if voice.weight == 1.0 else voice.weight,
        "tags": None if voice.tags is None else sorted(voice.tags),
        "shared_tokens": None if voice.translator is None else voice.translator.shared_tokens,
    }
    return {name: value for name, value in told.items() if value is not None}


def _model(lm: LanguageModel) -> dict[str, Any]:
    return {
        "name": lm.name,
        "revision": lm.revision,
        "architecture": type(lm.model).__name__,
        "parameters": count_weights(lm.model),
        **({} if lm.adapter is None else {"adapter_parameters": sum(map(torch.numel, adapter_weights(lm).values()))}),
    }
