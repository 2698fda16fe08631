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
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opd_core.diagnostics.profile import profile
from opd_core.diagnostics.records import Recorder, Text, choose_sequences
from opd_core.diagnostics.vitals import of_batch as vitals_of_batch
from opd_core.models import LanguageModel
from opd_core.objective.candidates import wanted_k
from opd_core.objective.plan import PlanState
from opd_core.rollout import Rollouts, by_length, uniform_noise, write
from opd_core.spec import JobSpec, MethodSpec
from opd_core.spec.job import LARGEST_TOP_K
from opd_core.tasks import Problem, Task
from opd_core.teachers import Scores, score_with_ends
from opd_core.training.budget import TRAINING_PHASES, Budget
from opd_core.training.context import feedback_context
from opd_core.training.evaluation import completions, verify
from opd_core.training.learner import Learner
from opd_core.training.prompts import PromptOrder
from opd_core.training.schedule import learning_rate
from opd_core.training.student_step import StudentStep
from opd_core.training.update import Losses, Update

_GATES = 0x6A7E  # sets the random gates' numbers apart from other uses of (seed, step)


@dataclass
class Trainer:
    """Everything a step needs. Mutable: the learners, the prompt cursor, the budget and the running statistics.

    ``reference`` is the student as it was at the start of the run, where the method needs it.
    """

    spec: JobSpec
    method: MethodSpec
    student: LanguageModel
    teacher: LanguageModel
    task: Task
    module: StudentStep
    learner: Learner
    critic: Learner | None
    reference: LanguageModel | None
    order: PromptOrder
    budget: Budget
    micro_tokens: int
    autocast: AbstractContextManager[Any]
    flop_parameters: tuple[int, int]  # student, teacher
    attempt: int = 1
    state: PlanState = field(default_factory=PlanState)


@dataclass(frozen=True)
class Written:
    """The student's rollouts of a step, shortest first. ``group`` [B] numbers the step's prompts."""

    problems: list[Problem]
    rollouts: Rollouts
    group: Tensor


@dataclass(frozen=True)
class Step:
    """What one step did: scalars, and if it was a recorded step its recorded sequences and its profile."""

    metrics: dict[str, float]
    records: list[dict[str, Any]]
    profile: list[dict[str, Any]]


class NonFiniteUpdate(RuntimeError):
    """The gradient is not finite; the weights were left as they were."""


def train_step(t: Trainer, step: int) -> Step:
    """Run update number ``step`` (1-based). Raises NonFiniteUpdate before touching the weights."""
    before = dict(t.budget.wall_s_by_phase)
    rewarded = "reward" in t.method.needs
    with t.autocast:
        with t.budget.phase("rollout"):
            written = write_rollouts(t, step)
        rollouts = written.rollouts
        with t.budget.phase("rollout" if rewarded else "telemetry"):
            texts = _texts(t, written)
        with t.budget.phase("teacher"):
            scores = score_with_ends(t.teacher, rollouts, micro_tokens=t.micro_tokens)
            reference = reference_scores(t, rollouts)
        with t.budget.phase("update"):
            update = Update(
                method=t.method,
                module=t.module,
                rollouts=rollouts,
                scores=scores,
                micro_tokens=t.micro_tokens,
                state=plan_state(t, step),
                context=feedback_context(
                    t.method,
                    t.student,
                    rollouts,
                    group=written.group,
                    reward=_rewards(texts, written.group.device) if rewarded else None,
                ),
                reference=reference,
            )
            losses = update.take_gradients()
        with t.budget.phase("telemetry"):
            recorder = _recorder(t, step, update)
            spread = [] if recorder is None else _profile(t, step, update)
            vitals = _vitals(t, update, texts)
        with t.budget.phase("update"):
            norms = _apply(t, step)
            t.state = t.state.advanced(update.plan.observed)
        with t.budget.phase("telemetry"):
            records = []
            if recorder is not None:
                if recorder.probe is not None:
                    recorder.probe.measure(t.module.trunk)
                records = recorder.rows(step=step, attempt=t.attempt, texts=texts)
                vitals |= recorder.vitals()

    _spend(t, rollouts, update.extra_forward)
    metrics = _metrics(update, losses=losses, norms=norms, texts=texts) | vitals
    metrics["lr"] = learning_rate(t.spec.optimizer, step, t.spec.schedule.steps)
    metrics["student_tokens"], metrics["teacher_tokens"] = t.budget.student_tokens, t.budget.teacher_tokens
    metrics["flops"] = t.budget.flops
    metrics["wall_s"] = t.budget.training_s
    spent = {name: seconds - before[name] for name, seconds in t.budget.wall_s_by_phase.items()}
    for name in TRAINING_PHASES:
        metrics[f"time_{name}_s"] = spent[name]
    metrics["tokens_per_s"] = int(rollouts.mask.sum()) / sum(spent.values())
    return Step(metrics, records, spread)


def write_rollouts(t: Trainer, step: int) -> Written:
    """The student's rollouts for this step, ``samples_per_prompt`` for each of the next problems."""
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
    return Written([problems[i] for i in order.tolist()], rollouts.reorder(order), order // spec.samples_per_prompt)


def reference_scores(t: Trainer, rollouts: Rollouts) -> Scores | None:
    """What the student of the run's start says about the same tokens; None where nothing asks for it."""
    return None if t.reference is None else score_with_ends(t.reference, rollouts, micro_tokens=t.micro_tokens)


def plan_state(t: Trainer, step: int) -> PlanState:
    """The state as the plan of update ``step`` may see it. Chance depends on (seed, step) alone."""
    credit = t.method.credit
    return replace(
        t.state,
        progress=(step - 1) / t.spec.schedule.steps,
        generator=torch.Generator().manual_seed(gate_seed(t.spec.seed, step)),
        critic_ready=credit.estimator != "gae" or step > credit.critic.warmup_steps,
    )


def gate_seed(seed: int, step: int) -> int:
    """What the random gates of an update are drawn from."""
    return int(np.random.SeedSequence((seed, step, _GATES)).generate_state(1, np.uint64)[0])


def _apply(t: Trainer, step: int) -> dict[str, float]:
    """Clip, step, clear, each learner by itself; returns the gradient norms before clipping."""
    learners = {"grad_norm": (t.learner, learning_rate(t.spec.optimizer, step, t.spec.schedule.steps))}
    if t.critic is not None:
        learners["critic_grad_norm"] = (t.critic, t.method.credit.critic.lr)
    norms = {name: learner.clip() for name, (learner, _) in learners.items()}
    if not all(map(math.isfinite, norms.values())):
        for learner, _ in learners.values():
            learner.forget()
        raise NonFiniteUpdate(f"the gradient is not finite at step {step}: {norms}")
    for learner, rate in learners.values():
        learner.step(rate)
    return norms


def _texts(t: Trainer, written: Written) -> list[Text]:
    completed = completions(t.student, written.rollouts)
    right = verify(t.task, written.problems, completed)
    return [
        Text(problem.id, problem.prompt, text, problem.answer, correct)
        for problem, text, correct in zip(written.problems, completed, right, strict=True)
    ]


def _rewards(texts: list[Text], device: torch.device) -> Tensor:
    """[B] 1 for a right answer, 0 for a wrong one."""
    unknown = next((text.problem for text in texts if text.correct is None), None)
    if unknown is not None:
        raise ValueError(f"problem {unknown} has no answer to verify, and the method needs rewards")
    return torch.tensor([float(bool(text.correct)) for text in texts], device=device)


def _recorder(t: Trainer, step: int, update: Update) -> Recorder | None:
    telemetry = t.spec.telemetry
    if not telemetry.sequences_per_step or (step - 1) % telemetry.every_n_steps:
        return None
    return Recorder(
        rollouts=update.rollouts,
        feedback=update.feedback,
        plan=update.plan,
        state=plan_state(t, step),
        student=update.student,
        sequences=choose_sequences(t.spec.seed, step, len(update.rollouts), telemetry.sequences_per_step),
        # What the method itself looked at is kept, so that the step can be planned again; within bounds.
        top_k=max(telemetry.top_k, min(wanted_k(t.method), LARGEST_TOP_K)),
        probe_states=telemetry.probe_states,
    )


def _vitals(t: Trainer, update: Update, texts: list[Text]) -> dict[str, float]:
    rollout = t.spec.rollout
    return vitals_of_batch(
        update.feedback,
        update.plan,
        correct=[text.correct for text in texts],
        texts=[text.completion for text in texts],
        same_policy=rollout.top_p == 1.0 and rollout.temperature == t.method.objective.temperature,
    )


def _profile(t: Trainer, step: int, update: Update) -> list[dict[str, Any]]:
    found = profile(update.feedback, update.plan, max_new_tokens=t.spec.rollout.max_new_tokens)
    return [{"step": step, "attempt": t.attempt, **row} for row in found]


def _spend(t: Trainer, rollouts: Rollouts, extra_forward: bool) -> None:
    written = int(rollouts.mask.sum())
    read = written + int(rollouts.prompt_mask.sum())
    student, teacher = t.flop_parameters
    readers = 2 * teacher + (2 * student if t.reference is not None else 0)
    t.budget.student_tokens += written
    t.budget.teacher_tokens += read
    t.budget.flops += float(read) * (2 * student + readers + (8 if extra_forward else 6) * student)


def _metrics(update: Update, *, losses: Losses, norms: dict[str, float], texts: list[Text]) -> dict[str, float]:
    feedback, rollouts = update.feedback, update.rollouts
    mask = rollouts.mask
    log_ratio = feedback.log_ratio[mask]
    metrics = {
        "loss": losses.student,
        "kl": float(feedback.kl[mask].mean()),
        "log_ratio_mean": float(log_ratio.mean()),
        "log_ratio_min": float(log_ratio.min()),
        "log_ratio_negative": float((log_ratio < 0).float().mean()),
        "entropy_student": float(feedback.student_entropy[mask].mean()),
        "entropy_teacher": float(feedback.teacher_entropy[mask].mean()),
        "length_mean": float(rollouts.lengths.float().mean()),
        "truncated": float(rollouts.truncated.float().mean()),
        **norms,
        **update.plan.statistics,
    }
    if update.plan.critic is not None:
        metrics["critic_loss"] = losses.critic
    verified = [text.correct for text in texts if text.correct is not None]
    if verified:
        metrics["rollout_accuracy"] = sum(verified) / len(verified)
    return metrics
