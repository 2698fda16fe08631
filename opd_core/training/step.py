"""One optimizer step, top to bottom: feedback becomes an update (arXiv 2606.22793).

    rollouts   the student writes (states.py: or others, where the job asks for it)
    scores     the teacher reads them in the student's own contexts
    feedback   what it said about each token, without gradients, for the whole batch
    plan       credit, routing, gates and weights: the update as data, on the whole batch
    loss       the plan applied to live student logits, micro-batch by micro-batch
    probe      what the update really moved

What was left out: nothing of the method lives here. A method is a MethodSpec, turned into a plan.
Several processes may share a step (sharing.py); with one, nothing is exchanged.
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
from opd_core.models import LanguageModel, copy_weights
from opd_core.objective.candidates import wanted_k
from opd_core.objective.plan import PlanState
from opd_core.rollout import Rollouts
from opd_core.spec import JobSpec, MethodSpec
from opd_core.spec.job import LARGEST_TOP_K
from opd_core.tasks import Task
from opd_core.tasks.environment import Transcript
from opd_core.teachers import Asked, Scored, Scores, Teacher, score_with_ends
from opd_core.training.ahead import read_ahead
from opd_core.training.budget import TRAINING_PHASES, Budget
from opd_core.training.context import feedback_context, special_ids
from opd_core.training.evaluation import answers, completions, verify
from opd_core.training.learner import Learner
from opd_core.training.memory import memory
from opd_core.training.prompts import PromptOrder
from opd_core.training.ranks import ALONE, Ranks
from opd_core.training.replay import Replay, beside
from opd_core.training.schedule import done, learning_rate, spent
from opd_core.training.sharing import (
    check_same,
    share,
    whole_scored,
    whole_scores,
    whole_verdicts,
    write_together,
)
from opd_core.training.states import DATA, ORIGINS, STUDENT, TEACHER, Writer, Written, sorted_by_length
from opd_core.training.student_step import StudentStep
from opd_core.training.update import Losses, Update

_BOTH = ("student", "teacher")
_GATES = 0x6A7E  # sets the random gates' numbers apart from other uses of (seed, step)


@dataclass
class Trainer:
    """Everything a step needs. Mutable: the learners, the prompt cursor, the budget and the running statistics.

    ``master`` holds the weights that are trained. It is the student itself, unless these are sharded: then the student
    is a whole copy that follows them, to write and to look at (sharded.py). ``reference`` is the student as it was at
    the start of the run, where the method needs it. Each of ``ranks`` has a trainer of its own, and all take their
    steps together.
    """

    spec: JobSpec
    method: MethodSpec
    student: LanguageModel
    teacher: Teacher
    task: Task
    master: LanguageModel
    module: StudentStep
    learner: Learner
    critic: Learner | None
    reference: LanguageModel | None
    order: PromptOrder
    budget: Budget
    micro_tokens: int
    autocast: AbstractContextManager[Any]
    writer: Writer
    replay: Replay | None = None
    attempt: int = 1
    ranks: Ranks = ALONE
    state: PlanState = field(default_factory=PlanState)


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
    rate = learning_rate(t.spec.optimizer, step, t.spec.schedule.steps, spent(t.spec.schedule, t.budget))
    progress = done(t.spec.schedule, t.budget, step)
    rewarded = "reward" in t.method.needs
    with t.autocast:
        with t.budget.phase("rollout"):
            written = write_rollouts(t, step, progress)
        rollouts = written.rollouts
        with t.budget.phase("rollout" if rewarded else "telemetry"):
            texts = _texts(t, written, t.ranks)
        with t.budget.phase("update"):
            ahead = read_ahead(
                t.teacher,
                t.method,
                t.module,
                t.student.head,
                rollouts,
                micro_tokens=t.micro_tokens,
                state=t.state,
                special_ids=special_ids(t.student),
            )
        with t.budget.phase("teacher"):
            own = share(rollouts, t.ranks)
            questions = replace(asked(written, texts), proposed=ahead.proposed)
            if t.ranks.count > 1:
                questions = questions.select(range(own.start, own.stop))
            scored = whole_scored(t.teacher.score(questions, micro_tokens=t.micro_tokens), t.ranks)
            reference = reference_scores(t, rollouts)
        with t.budget.phase("update"):
            update = Update(
                method=t.method,
                module=t.module,
                head=t.student.head,
                rollouts=rollouts,
                scores=scored.scores,
                micro_tokens=t.micro_tokens,
                state=plan_state(t, step, progress),
                context=feedback_context(
                    t.method,
                    t.student,
                    rollouts,
                    group=written.group,
                    reward=_rewards(texts, written.group.device) if rewarded else None,
                    from_data=written.origin == DATA if "origin" in t.method.needs else None,
                ),
                reference=reference,
                ranks=t.ranks,
                reading=ahead.reading,
            )
            losses = update.take_gradients()
        with t.budget.phase("telemetry"):
            recorder = _recorder(t, step, update, progress)
            spread = [] if recorder is None else _profile(t, step, update)
            vitals = _vitals(t, update, texts) if t.ranks.leads else {}
        with t.budget.phase("update"):
            norms = _apply(t, step, rate)
            follow_master(t)
            if t.replay is not None:  # only now: a step that a vanished teacher broke off leaves nothing behind
                t.replay.keep(written.fresh(), step=step)
            t.state = t.state.advanced(update.plan.observed)
        with t.budget.phase("telemetry"):
            records = []
            if recorder is not None:
                if recorder.probe is not None:
                    recorder.probe.measure(t.student.trunk)
                records = recorder.rows(step=step, attempt=t.attempt, texts=texts)
                vitals |= recorder.vitals()

    _spend(t, written, scored, update.extra_forward)
    metrics = _metrics(update, losses=losses, norms=norms, texts=texts) | vitals
    metrics |= _origins(t, written) | _voices(t, update, written, scored)
    metrics["lr"] = rate
    metrics["student_tokens"], metrics["teacher_tokens"] = t.budget.student_tokens, t.budget.teacher_tokens
    metrics["flops"] = t.budget.flops
    metrics["wall_s"] = t.budget.training_s
    took = {name: seconds - before[name] for name, seconds in t.budget.wall_s_by_phase.items()}
    for name in TRAINING_PHASES:
        metrics[f"time_{name}_s"] = took[name]
    metrics["tokens_per_s"] = int(rollouts.mask.sum()) / sum(took.values())
    metrics |= memory(written.group.device)
    return Step(metrics, records, spread)


def write_rollouts(t: Trainer, step: int, progress: float) -> Written:
    """The rows of this step: fresh ones for the next problems, and where the job replays, old ones beside them."""
    count = t.spec.rollout.prompts_per_step
    replayed = 0 if t.replay is None else t.replay.wanted(count)
    fresh = write_together(t.writer, t.order.take(count - replayed), t.ranks, step=step, progress=progress)
    old = None
    if t.replay is not None:
        old = t.replay.draw(replayed, seed=t.spec.seed, step=step)
    return sorted_by_length(beside(fresh, old, t.student.pad_id))


def ask(t: Trainer, written: Written) -> Asked:
    """What the teachers are asked about rows that nobody has looked at yet, by this process alone."""
    if not t.teacher.shows_solutions:
        return Asked(written.rollouts, written.problems, [None] * len(written.problems), written.begun)
    return asked(written, _texts(t, written, ALONE))


def asked(written: Written, texts: list[Text]) -> Asked:
    """What the teachers are asked about. A row is shown the first right solution of another row of its prompt."""
    right: dict[int, list[int]] = {}
    groups = written.group.tolist()
    for row, (group, text) in enumerate(zip(groups, texts, strict=True)):
        if text.correct:
            right.setdefault(group, []).append(row)
    solutions = [
        next((texts[other].completion for other in right.get(group, []) if other != row), None)
        for row, group in enumerate(groups)
    ]
    return Asked(written.rollouts, written.problems, solutions, written.begun)


def reference_scores(t: Trainer, rollouts: Rollouts) -> Scores | None:
    """What the student of the run's start says about the same tokens; None where nothing asks for it."""
    if t.reference is None:
        return None
    own = rollouts.select(share(rollouts, t.ranks))
    return whole_scores(score_with_ends(t.reference, own, micro_tokens=t.micro_tokens), t.ranks)


def plan_state(t: Trainer, step: int, progress: float) -> PlanState:
    """The state as the plan of update ``step`` may see it. Chance depends on (seed, step) alone."""
    credit = t.method.credit
    return replace(
        t.state,
        progress=progress,
        generator=torch.Generator().manual_seed(gate_seed(t.spec.seed, step)),
        critic_ready=credit.estimator != "gae" or step > credit.critic.warmup_steps,
    )


def gate_seed(seed: int, step: int) -> int:
    """What the random gates of an update are drawn from."""
    return int(np.random.SeedSequence((seed, step, _GATES)).generate_state(1, np.uint64)[0])


def _apply(t: Trainer, step: int, rate: float) -> dict[str, float]:
    """Clip, step, clear, each learner by itself; returns the gradient norms before clipping."""
    learners = {"grad_norm": (t.learner, rate)}
    if t.critic is not None:
        learners["critic_grad_norm"] = (t.critic, t.method.credit.critic.lr)
    norms = {name: learner.clip() for name, (learner, _) in learners.items()}
    if not all(map(math.isfinite, norms.values())):
        for learner, _ in learners.values():
            learner.forget()
        raise NonFiniteUpdate(f"the gradient is not finite at step {step}: {norms}")
    for learner, its_rate in learners.values():
        learner.step(its_rate)
    check_same(t.module, t.ranks, step)
    return norms


def follow_master(t: Trainer) -> None:
    """After an update: whatever moves with the weights that were trained."""
    if t.master is not t.student:
        copy_weights(t.master, t.student)
    t.teacher.follow(t.master)


def _texts(t: Trainer, written: Written, ranks: Ranks) -> list[Text]:
    """What was begun by others belongs to the solution that is verified, and to the prompt of what is shown."""
    own = completions(t.student, written.rollouts)
    whole, begun = own, [""] * len(own)
    if t.task.by_turns or any(written.begun):
        rows = zip(written.begun, written.rollouts.transcripts(), strict=True)
        whole = answers(t.student, t.task, [Transcript(ids, [True] * len(ids)).then(after) for ids, after in rows])
    if any(written.begun):
        decode = t.student.tokenizer.batch_decode
        begun = [f"{text} " if text else "" for text in decode(written.begun, skip_special_tokens=True)]
    mine = share(written.rollouts, ranks)
    right = whole_verdicts(verify(t.task, written.problems[mine], whole[mine]), ranks)
    return [
        Text(
            problem.id,
            f"{problem.prompt} {before}".rstrip() if before else problem.prompt,
            text,
            problem.answer,
            correct,
            ORIGINS[who],
        )
        for problem, before, text, correct, who in zip(
            written.problems, begun, own, right, written.origin.tolist(), strict=True
        )
    ]


def _rewards(texts: list[Text], device: torch.device) -> Tensor:
    """[B] 1 for a right answer, 0 for a wrong one."""
    unknown = next((text.problem for text in texts if text.correct is None), None)
    if unknown is not None:
        raise ValueError(f"problem {unknown} has no answer to verify, and the method needs rewards")
    return torch.tensor([float(bool(text.correct)) for text in texts], device=device)


def _recorder(t: Trainer, step: int, update: Update, progress: float) -> Recorder | None:
    telemetry = t.spec.telemetry
    if not t.ranks.leads or not telemetry.sequences_per_step or (step - 1) % telemetry.every_n_steps:
        return None
    return Recorder(
        rollouts=update.rollouts,
        feedback=update.feedback,
        plan=update.plan,
        state=plan_state(t, step, progress),
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
        same_policy=rollout.on_policy
        and rollout.top_p == 1.0
        and rollout.temperature == t.method.objective.temperature,
    )


def _profile(t: Trainer, step: int, update: Update) -> list[dict[str, Any]]:
    found = profile(update.feedback, update.plan, max_new_tokens=t.spec.rollout.max_new_tokens)
    return [{"step": step, "attempt": t.attempt, **row} for row in found]


def _spend(t: Trainer, written: Written, scored: Scored, extra_forward: bool) -> None:
    rollouts, student = written.rollouts, t.student.flop_parameters
    sizes = rollouts.spans
    read, fresh = int(sizes.sum()), written.age == 0
    by_student, by_teacher = (fresh & (written.origin == who) for who in (STUDENT, TEACHER))
    t.budget.student_tokens += int(rollouts.lengths[by_student].sum())
    t.budget.teacher_written_tokens += int(rollouts.lengths[by_teacher].sum()) + written.teacher_begun
    t.budget.teacher_tokens += scored.tokens
    readers = 2 * student if t.reference is not None else 0
    mixing = t.spec.rollout.teacher_mix > 0
    writer = max((voice.lm.flop_parameters for voice in t.teacher.voices), default=0)
    t.budget.flops += (
        2.0 * student * int(sizes[by_student].sum())
        + 2.0 * writer * (int(sizes[by_student | by_teacher if mixing else by_teacher].sum()) + written.teacher_begun)
        + scored.flops
        + float(read) * (readers + (8 if extra_forward else 6) * student)
    )


def _origins(t: Trainer, written: Written) -> dict[str, float]:
    """Shares of the rows by who wrote them; nothing where all are the student's own."""
    if t.spec.rollout.on_policy:
        return {}
    found = {}
    for name, who in (("teacher", TEACHER), ("data", DATA)):
        if getattr(t.spec.rollout.written_by, name) > 0:
            found[f"rows_{name}"] = float((written.origin == who).float().mean())
    if t.replay is not None:
        found["rows_replayed"] = float((written.age > 0).float().mean())
        found["rows_age_mean"] = float(written.age.float().mean())
        found["prompts_too_old"] = float(t.replay.dropped)
    return found


def _voices(t: Trainer, update: Update, written: Written, scored: Scored) -> dict[str, float]:
    """For each of several teachers: what it read, and how well the student's tokens fit on its problems."""
    if len(t.teacher.voices) < 2:
        return {}
    found: dict[str, float] = {}
    for k, (voice, tokens) in enumerate(zip(t.teacher.voices, scored.of_each, strict=True)):
        found[f"teacher_{k}_tokens"] = float(tokens)
        rows = torch.tensor([voice.speaks_for(problem) for problem in written.problems], device=written.group.device)
        mask = update.feedback.mask & rows[:, None]
        if bool(mask.any()):
            found[f"teacher_{k}_kl"] = float(update.feedback.kl[mask].mean())
    return found


def _alignment(update: Update) -> dict[str, float]:
    """How much of the step a teacher with another tokenizer speaks of; nothing where it has the student's."""
    shared, mass = update.feedback.shared, update.feedback.shared_mass
    if shared is None or mass is None:
        return {}
    found = {"aligned": float(shared.rows.float().mean())}
    if bool(shared.rows.any()):
        found |= {f"aligned_{who}_mass": float(m[shared.rows].mean()) for who, m in zip(_BOTH, mass, strict=True)}
    return found


def _metrics(update: Update, *, losses: Losses, norms: dict[str, float], texts: list[Text]) -> dict[str, float]:
    feedback, rollouts = update.feedback, update.rollouts
    # Of tokens that the teacher says nothing about, the numbers would say that both agree.
    mask = feedback.heard if bool(feedback.heard.any()) else rollouts.mask
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
        **_alignment(update),
    }
    if update.plan.critic is not None:
        metrics["critic_loss"] = losses.critic
    verified = [text.correct for text in texts if text.correct is not None]
    if verified:
        metrics["rollout_accuracy"] = sum(verified) / len(verified)
    return metrics
