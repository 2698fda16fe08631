"""One optimizer step, top to bottom: feedback becomes an update (arXiv 2606.22793).

    rollouts   the student writes
    scores     the teacher reads them in the student's own contexts
    feedback   what it said about each token, without gradients, for the whole batch
    plan       credit, routing, gates and weights: the update as data, on the whole batch
    loss       the plan applied to live student logits, micro-batch by micro-batch
    probe      what the update really moved

What was left out: nothing of the method lives here. A method is a MethodSpec, turned into a plan.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from opd_core.diagnostics.records import Recorder, Text, choose_sequences
from opd_core.models import LanguageModel
from opd_core.objective.plan import PlanState
from opd_core.rollout import Rollouts, by_length, uniform_noise, write
from opd_core.spec import JobSpec, MethodSpec
from opd_core.tasks import Problem, Task
from opd_core.teachers import score
from opd_core.training.budget import Budget
from opd_core.training.evaluation import completions, verify
from opd_core.training.prompts import PromptOrder
from opd_core.training.schedule import learning_rate
from opd_core.training.student_step import StudentStep
from opd_core.training.update import Update


@dataclass
class Trainer:
    """Everything a step needs. Mutable: the student, the optimizer, the prompt cursor and the budget."""

    spec: JobSpec
    method: MethodSpec
    student: LanguageModel
    teacher: LanguageModel
    task: Task
    module: StudentStep
    optimizer: torch.optim.Optimizer
    order: PromptOrder
    budget: Budget
    micro_tokens: int
    autocast: AbstractContextManager[Any]
    flop_parameters: tuple[int, int]  # student, teacher
    attempt: int = 1


@dataclass(frozen=True)
class Step:
    """What one step did: scalars, and the recorded sequences if it was a recorded step."""

    metrics: dict[str, float]
    records: list[dict[str, Any]]


class NonFiniteUpdate(RuntimeError):
    """The gradient is not finite; the weights were left as they were."""


def train_step(t: Trainer, step: int) -> Step:
    """Run update number ``step`` (1-based). Raises NonFiniteUpdate before touching the weights."""
    before = dict(t.budget.wall_s_by_phase)
    with t.autocast:
        with t.budget.phase("rollout"):
            problems, rollouts = write_rollouts(t, step)
        with t.budget.phase("teacher"):
            scores = score(t.teacher, rollouts, micro_tokens=t.micro_tokens)
        with t.budget.phase("update"):
            update = Update(
                method=t.method,
                module=t.module,
                rollouts=rollouts,
                scores=scores,
                micro_tokens=t.micro_tokens,
                state=PlanState(progress=(step - 1) / t.spec.schedule.steps),
            )
            loss = update.take_gradients()
        with t.budget.phase("telemetry"):
            texts = _texts(t, problems, rollouts)
            recorder = _recorder(t, step, update)
        with t.budget.phase("update"):
            gradient_norm = _apply(t, step)
        with t.budget.phase("telemetry"):
            records = []
            if recorder is not None:
                if recorder.probe is not None:
                    recorder.probe.measure(t.module.trunk)
                records = recorder.rows(step=step, attempt=t.attempt, texts=texts)

    _spend(t, rollouts, update.extra_forward)
    metrics = _metrics(update, loss=loss, gradient_norm=gradient_norm, texts=texts)
    metrics["lr"] = learning_rate(t.spec.optimizer, step, t.spec.schedule.steps)
    metrics["student_tokens"], metrics["teacher_tokens"] = t.budget.student_tokens, t.budget.teacher_tokens
    metrics["flops"] = t.budget.flops
    spent = {name: seconds - before[name] for name, seconds in t.budget.wall_s_by_phase.items()}
    for name in ("rollout", "teacher", "update", "telemetry"):
        metrics[f"time_{name}_s"] = spent[name]
    metrics["tokens_per_s"] = int(rollouts.mask.sum()) / sum(spent.values())
    return Step(metrics, records)


def write_rollouts(t: Trainer, step: int) -> tuple[list[Problem], Rollouts]:
    """The student's rollouts for this step, ``samples_per_prompt`` for each of the next problems, shortest first."""
    spec = t.spec.rollout
    problems = [p for p in t.order.take(spec.prompts_per_step) for _ in range(spec.samples_per_prompt)]
    rows = [(problem.id, i % spec.samples_per_prompt) for i, problem in enumerate(problems)]
    rollouts = write(
        t.student,
        [t.task.encode(problem) for problem in problems],
        max_new_tokens=spec.max_new_tokens,
        noise=uniform_noise(t.spec.seed, step, rows, spec.max_new_tokens),
        temperature=spec.temperature,
        top_p=spec.top_p,
    )
    # Sequences of similar length side by side: padding would be half of the work otherwise.
    order = by_length(rollouts)
    return [problems[i] for i in order.tolist()], rollouts.reorder(order)


def _apply(t: Trainer, step: int) -> float:
    """Clip, step, clear; returns the gradient norm before clipping."""
    parameters = [p for group in t.optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, t.spec.optimizer.max_grad_norm))
    if not math.isfinite(norm):
        t.optimizer.zero_grad(set_to_none=True)
        raise NonFiniteUpdate(f"the gradient norm at step {step} is {norm}")
    for group in t.optimizer.param_groups:
        group["lr"] = learning_rate(t.spec.optimizer, step, t.spec.schedule.steps)
    t.optimizer.step()
    t.optimizer.zero_grad(set_to_none=True)
    return norm


def _texts(t: Trainer, problems: list[Problem], rollouts: Rollouts) -> list[Text]:
    written = completions(t.student, rollouts)
    right = verify(t.task, problems, written)
    return [
        Text(problem.id, problem.prompt, text, problem.answer, correct)
        for problem, text, correct in zip(problems, written, right, strict=True)
    ]


def _recorder(t: Trainer, step: int, update: Update) -> Recorder | None:
    telemetry = t.spec.telemetry
    if not telemetry.sequences_per_step or (step - 1) % telemetry.every_n_steps:
        return None
    return Recorder(
        rollouts=update.rollouts,
        feedback=update.feedback,
        plan=update.plan,
        student=update.student,
        sequences=choose_sequences(t.spec.seed, step, len(update.rollouts), telemetry.sequences_per_step),
        top_k=telemetry.top_k,
        probe_states=telemetry.probe_states,
    )


def _spend(t: Trainer, rollouts: Rollouts, extra_forward: bool) -> None:
    written = int(rollouts.mask.sum())
    read = written + int(rollouts.prompt_mask.sum())
    student, teacher = t.flop_parameters
    t.budget.student_tokens += written
    t.budget.teacher_tokens += read
    t.budget.flops += float(read) * (2 * student + 2 * teacher + (8 if extra_forward else 6) * student)


def _metrics(update: Update, *, loss: float, gradient_norm: float, texts: list[Text]) -> dict[str, float]:
    feedback, rollouts = update.feedback, update.rollouts
    mask = rollouts.mask
    log_ratio = feedback.log_ratio[mask]
    metrics = {
        "loss": loss,
        "kl": float(feedback.kl[mask].mean()),
        "log_ratio_mean": float(log_ratio.mean()),
        "log_ratio_min": float(log_ratio.min()),
        "log_ratio_negative": float((log_ratio < 0).float().mean()),
        "entropy_student": float(feedback.student_entropy[mask].mean()),
        "entropy_teacher": float(feedback.teacher_entropy[mask].mean()),
        "length_mean": float(rollouts.lengths.float().mean()),
        "truncated": float(rollouts.truncated.float().mean()),
        "grad_norm": gradient_norm,
        **update.plan.statistics,
    }
    verified = [text.correct for text in texts if text.correct is not None]
    if verified:
        metrics["rollout_accuracy"] = sum(verified) / len(verified)
    return metrics
