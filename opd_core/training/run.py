"""A whole run, from a resolved spec and an output directory to a checkpoint and a report."""

from __future__ import annotations

import base64
import os
import platform
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from opd_core.diagnostics import health
from opd_core.diagnostics.self_check import TOLERANCE, self_check
from opd_core.models import (
    LanguageModel,
    adapter_weights,
    count_weights,
    save_model,
    save_student,
)
from opd_core.objective.proposals import propose
from opd_core.objective.shared import TranslatedTarget
from opd_core.objective.targets import HiddenTarget, Target
from opd_core.recipes import Recipe, load, resolve
from opd_core.rollout import completion_hidden
from opd_core.runs import profiles, records
from opd_core.runs.artifacts import RunFiles
from opd_core.servers import ServerUnreachable
from opd_core.spec import JobSpec, UserError
from opd_core.teachers import RemoteTeacher, Teacher, Voice
from opd_core.training import checkpoint, messages, outcomes
from opd_core.training.context import special_ids
from opd_core.training.device import precision, set_up_torch
from opd_core.training.evaluation import Evaluation, Sampled, evaluate, evaluate_samples, recovery, verify
from opd_core.training.fingerprint import differences, fingerprint
from opd_core.training.messages import Emit
from opd_core.training.prepare import kept, prepare, restore
from opd_core.training.ranks import GATHER, OVER, Ranks
from opd_core.training.report import as_markdown, build_report, gap_recovered
from opd_core.training.schedule import spent
from opd_core.training.sharded import Gathered, gathered, shard
from opd_core.training.states import sorted_by_length
from opd_core.training.step import Step, Trainer, ask, train_step
from opd_core.training.tally import Tally
from opd_core.training.team import team

_SCALARS_AGAIN = 100  # of the newest steps are said again on a resume
# Recorded steps per Parquet part: fresh enough to browse, few enough files.
_STEPS_PER_PART = 20
_TOKENS_PER_PART = 100_000  # they wait in memory


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is saved and the same command resumes it."""


def train(
    spec: JobSpec,
    out: str | os.PathLike[str] | RunFiles,
    *,
    attempt: int = 1,
    emit: Emit,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run ``spec`` in the run directory ``out`` (path, fsspec URL or its files), or resume it; returns the report.

    ``should_save`` is asked after each step whether a checkpoint is wanted beside the regular ones. Raises UserError
    for what the user can put right, Stopped when ``should_stop`` said so after a step.
    """
    spec = resolve(spec)
    files = out if isinstance(out, RunFiles) else RunFiles(out)
    run = _Run(spec, files, attempt=attempt, emit=emit, should_stop=should_stop, should_save=should_save)
    device = set_up_torch(spec)
    run.check_directory()
    with team(spec, files, device, attempt=attempt) as ranks:
        return run.run(device, ranks)


class _Run:
    def __init__(
        self,
        spec: JobSpec,
        files: RunFiles,
        *,
        attempt: int,
        emit: Emit,
        should_stop: Callable[[], bool],
        should_save: Callable[[], bool],
    ) -> None:
        self.spec, self.files, self.attempt = spec, files, attempt
        self.emit, self.should_stop, self.should_save = emit, should_stop, should_save
        self.recipe: Recipe = load(spec.recipe)
        self.warnings: list[str] = []
        self.accuracy: dict[str, float | None] = dict.fromkeys(("before", "after", "teacher", "gap_recovered"))
        self.self_check: dict[str, Any] | None = None
        self.health: dict[str, Any] = {}
        self.findings: list[dict[str, Any]] = []
        self.tally = Tally()
        self.latest: Evaluation | None = None  # of the student
        self.unwritten: list[Step] = []  # recorded steps that are not at rest yet
        self.recent: deque[float] = deque(maxlen=20)  # seconds of the last steps, for the ETA
        self.scalars: deque[tuple[int, dict[str, float]]] = deque(maxlen=_SCALARS_AGAIN)

    def run(self, device: torch.device, ranks: Ranks) -> dict[str, Any]:
        began = time.perf_counter()
        t = prepare(self.spec, self.files, device, ranks=ranks, attempt=self.attempt, emit=self.emit, warn=self._warn)
        ranks.tell({})  # only now do the others load: what the user has to put right is said once
        if self.spec.resources.sharding == "fsdp2":
            shard(t, device)
        start = self._resume(t, device)
        t.budget.wall_s_by_phase["setup"] += time.perf_counter() - began
        if start == 0:
            self._first_look(t)
        self.emit(messages.phase("training"))
        step = start
        if step > 0 and self._over(t, step) and self.scalars:
            # Nothing is left to train: who listened to the last step may have died before recording how far it is.
            self._say_progress(t, step, self.scalars[-1][1])
        while not self._over(t, step):
            if self.should_stop():
                self._stop(t, step)
            step += 1
            ranks.tell({"step": step, "budget": t.budget.as_dict()})
            cursor = t.order.cursor
            try:
                self._one_step(t, step)
            except ServerUnreachable:
                t.order.cursor = cursor  # the step has not been
                self._save_if_new(t, step - 1)
                raise
        end = self._gathered(t)
        ranks.tell(OVER)
        t.writer.end()
        return self._finish(t, step, end.student)

    # -- before the first step ---------------------------------------------------------------------------------------

    def check_directory(self) -> None:
        """A run directory belongs to one spec: resuming another one in it would mix two runs."""
        resolved = self.spec.model_dump(mode="json")
        if self.files.exists("spec.json"):
            if not _same_run(self.files.read_json("spec.json"), self.spec):
                raise UserError(
                    f"the directory {self.files.url} holds a run of another spec; choose another one or remove it",
                    param="out",
                    code="other_run",
                )
            return
        self.files.write_json("spec.json", resolved)

    def _resume(self, t: Trainer, device: torch.device) -> int:
        """Restore the newest sound checkpoint; returns the step it was taken at, 0 for a fresh run."""
        self.fingerprint = fingerprint(
            t.student,
            device=device,
            precision=precision(self.spec, device),
            micro_tokens=t.micro_tokens,
            processes=t.ranks.count,
            sharding=self.spec.resources.sharding,
            compiled=self.spec.student.compile,
        )
        checkpoint.sweep(self.files)
        progress, damaged = restore(t, self.files, device)
        for sentence in damaged:
            self.emit(messages.event("checkpoint_damaged", sentence, level="warning"))
        if progress is None:
            self._warn(*damaged)
            return 0
        self.accuracy, self.self_check = progress.accuracy, progress.self_check
        self.health, self.findings, self.tally = progress.health, progress.findings, Tally(progress.tally)
        for at, values in progress.scalars:  # who listened before may have died with what it had not recorded yet
            self._say_scalars(at, values)
        self.warnings = list(dict.fromkeys([*progress.warnings, *self.warnings]))
        self._warn(*damaged)
        self.emit(messages.event("resumed", f"resumed after step {progress.step}", step=progress.step))
        if changed := differences(progress.fingerprint, self.fingerprint):
            changes = ", ".join(changed)
            self._warn(f"resumed on another set-up, so not bit for bit what an uninterrupted run gives: {changes}")
        return progress.step

    def _first_look(self, t: Trainer) -> None:
        """Self-check and accuracies before any update."""
        self.emit(messages.phase("checking the objective"))
        self._self_check(t)
        self.emit(messages.phase("evaluating teacher and student"))
        solved = self._taught(t)
        taught = None if solved is None else sum(solved.values()) / len(solved)
        before = self._evaluate(t, t.student)
        self.accuracy["teacher"] = taught
        self.accuracy["before"] = before.accuracy if before else None
        if before:
            self.files.write_json(outcomes.FILE, outcomes.first(before, solved, self._sampled(t)))
        if taught is not None and before:
            self.emit({"type": "accuracy", "before": before.accuracy, "teacher": taught})
            values = {
                "accuracy": before.accuracy,
                "eval_length": before.mean_length,
                **self._recovery(t, before),
                **self._ood(t),
            }
            self._say_scalars(0, values)
            self.latest = before
            if taught <= before.accuracy:
                self._warn(
                    f"the teacher ({taught:.1%}) is no better than the student ({before.accuracy:.1%}) on the "
                    "evaluation split: there is little to learn from it here"
                )

    def _self_check(self, t: Trainer) -> None:
        cursor = t.order.cursor
        with t.autocast, torch.no_grad():
            written = sorted_by_length(
                t.writer.fresh(t.order.take(t.spec.rollout.prompts_per_step), step=1, progress=0.0)
            )
            rollouts = written.rollouts
            student = HiddenTarget(completion_hidden(t.student.trunk, rollouts), t.student.head)
            question = ask(t, written)
            if t.teacher.wants_proposals:
                question = replace(question, proposed=propose(t.method, student, special_ids(t.student)))
            told = t.teacher.score(question, micro_tokens=t.micro_tokens).scores.rows
            self._check_aligned(told)
            found = self_check(
                t.method,
                rollouts,
                student,
                told,
                eos_ids=t.student.eos_ids,
                special_ids=special_ids(t.student),
            )
        t.order.cursor = cursor  # the same problems are the first step's
        self.self_check = found.as_dict()
        if found.force_at_teacher is not None and found.force_at_teacher > TOLERANCE:
            raise RuntimeError(
                f"self-check: the update does not vanish where teacher equals student (force "
                f"{found.force_at_teacher:.2g} > {TOLERANCE:g}); this is a defect of the objective"
            )
        if found.force <= TOLERANCE:
            self._warn("the teacher scores the student's tokens exactly as the student does: there is nothing to learn")
        if not found.aligned:
            offsets = ", ".join(f"{offset}: {nats:.2f}" for offset, nats in found.alignment.items())
            self._warn(
                "the teacher's scores fit the student's tokens better one position off than where they stand (mean "
                f"log-probability at offset {offsets}): check that both models read the same tokens"
            )
        vanishes = (
            f"optimum elsewhere than at the teacher ({found.shift}), not checked there"
            if found.force_at_teacher is None
            else f"update vanishes at teacher = student ({found.force_at_teacher:.1e})"
        )
        self.emit(
            messages.event(
                "self_check",
                f"{vanishes}; force with the real scores {found.force:.1e}; cosine to the exact reverse-KL gradient "
                f"{found.cosine_to_reverse_kl:.2f}",
                **self.self_check,
            )
        )

    def _check_aligned(self, told: Target) -> None:
        """Of the first batch, enough must be in the words of a teacher with another tokenizer. Raises UserError."""
        if not isinstance(told, TranslatedTarget):
            return
        aligned, least = float(told.shared.rows.float().mean()), self._least_aligned
        tokens = int((~told.shared.absent).sum())
        sentence = (
            f"{aligned:.1%} of the first batch's tokens are aligned with the teacher's, which has {tokens:,} of the "
            f"student's {len(told.shared.absent):,} tokens"
        )
        if aligned < least:
            raise UserError(
                f"teacher.tokenizer.min_aligned: {least:g} is not reached: {sentence}; choose a teacher whose "
                "tokenizer is closer to the student's, or accept less",
                param="teacher.tokenizer.min_aligned",
                code="tokenizers_too_different",
            )
        self.emit(messages.event("aligned", sentence, aligned=aligned, shared_tokens=tokens))

    @property
    def _least_aligned(self) -> float:
        teacher = self.spec.teacher
        return 0.0 if teacher is None or teacher.tokenizer is None else teacher.tokenizer.min_aligned

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _over(self, t: Trainer, step: int) -> bool:
        """Whether ``step`` steps are all of the run: the last one, or the budget is spent."""
        return step >= self.spec.schedule.steps or spent(self.spec.schedule, t.budget) >= 1.0

    def _eta_s(self, t: Trainer, step: int) -> float:
        schedule = self.spec.schedule
        left = float(schedule.steps - step)
        if share := spent(schedule, t.budget):
            left = min(left, max(0.0, step / share - step))
        return sum(self.recent) / len(self.recent) * left if self.recent else 0.0

    def _one_step(self, t: Trainer, step: int) -> None:
        started = time.perf_counter()
        result = train_step(t, step)
        with t.budget.phase("telemetry"):
            self._record(step, result)
        metrics = result.metrics
        self.tally.add(metrics)
        self._watch(step, metrics)
        schedule = self.spec.schedule
        last = self._over(t, step)
        if last or (schedule.evaluate_every and step % schedule.evaluate_every == 0):
            found = self._evaluate(t, t.student)
            if found:
                self.latest = found
                metrics |= {"accuracy": found.accuracy, "eval_length": found.mean_length}
                metrics |= self._recovery(t, found) | self._ood(t)
        self.recent.append(time.perf_counter() - started)
        self._say_scalars(step, metrics)
        self._say_progress(t, step, metrics)
        regular = last or (schedule.checkpoint_every and step % schedule.checkpoint_every == 0)
        if self.should_save() or regular:  # asked first: a regular one fulfils the wish as well
            self._checkpoint(t, step)

    def _say_progress(self, t: Trainer, step: int, metrics: dict[str, float]) -> None:
        self.emit(
            {
                "type": "progress",
                "step": step,
                "total": self.spec.schedule.steps,
                "student_tokens": t.budget.student_tokens,
                "teacher_tokens": t.budget.teacher_tokens,
                "tokens_per_s": metrics["tokens_per_s"],
                "eta_s": self._eta_s(t, step),
                "loss": metrics["loss"],
                "accuracy": self.latest.accuracy if self.latest else None,
            }
        )

    def _say_scalars(self, step: int, values: dict[str, float]) -> None:
        self.scalars.append((step, dict(values)))
        self.emit({"type": "metrics", "step": step, "values": values})

    def _watch(self, step: int, metrics: dict[str, float]) -> None:
        if metrics.get("aligned", 1.0) < self._least_aligned:
            self._warn(
                "teacher.tokenizer.min_aligned: fewer of the student's tokens are aligned with the teacher's than that "
                "in some steps (metric aligned): most of what it writes there gets no feedback"
            )
        self.health, found = health.observe(
            self.health, step, length_mean=metrics["length_mean"], truncated=metrics["truncated"]
        )
        for finding in found:
            self.findings.append(finding)
            self._warn(finding["sentence"])
            data = {name: value for name, value in finding.items() if name != "sentence"}
            self.emit(messages.event("health", finding["sentence"], level="warning", **data))

    def _record(self, step: int, result: Step) -> None:
        if not result.records:
            return
        payload, spread = records.encode(result.records), profiles.encode(result.profile)
        self.emit({"type": "records", "step": step, "payload": _ascii(payload), "profile": _ascii(spread)})
        self.unwritten.append(result)
        tokens = sum(row["length"] for recorded in self.unwritten for row in recorded.records)
        if len(self.unwritten) >= _STEPS_PER_PART or tokens >= _TOKENS_PER_PART:
            self._write_records()

    def _write_records(self) -> None:
        if self.unwritten:
            rows = [row for recorded in self.unwritten for row in recorded.records]
            spread = [row for recorded in self.unwritten for row in recorded.profile]
            first, last = rows[0]["step"], rows[-1]["step"]
            records.write_part(self.files, rows, first, last, self.attempt)
            profiles.write_part(self.files, spread, first, last, self.attempt)
            self.unwritten = []

    def _evaluate(self, t: Trainer, lm: LanguageModel, **options: Any) -> Evaluation | None:
        with t.budget.phase("evaluation"), t.autocast:
            found = evaluate(
                lm,
                t.task,
                max_new_tokens=self.spec.rollout.max_new_tokens,
                engine=t.writer.engine if lm is t.student else None,
                **options,
            )
        if found:
            t.budget.eval_tokens += found.tokens
            t.budget.eval_flops += 2.0 * lm.flop_parameters * found.spent
        return found

    def _sampled(self, t: Trainer) -> Sampled | None:
        """What several samples of each held-out problem come to, where the job asks for pass@k."""
        samples, rollout = self.spec.schedule.pass_at_k, self.spec.rollout
        if not samples:
            return None
        with t.budget.phase("evaluation"), t.autocast:
            found = evaluate_samples(
                t.student,
                t.task,
                samples=samples,
                seed=self.spec.seed,
                max_new_tokens=rollout.max_new_tokens,
                temperature=rollout.temperature,
                top_p=rollout.top_p,
                engine=t.writer.engine,
            )
        if found:
            t.budget.eval_tokens += found.tokens
            t.budget.eval_flops += 2.0 * t.student.flop_parameters * found.spent
        return found

    def _taught(self, t: Trainer) -> dict[int, bool] | None:
        """Right or wrong by problem: each is solved by the heaviest teacher that speaks for it, in its own context."""
        if isinstance(t.teacher, RemoteTeacher):
            return self._solved_by_server(t, t.teacher)
        speakers = {problem.id: t.teacher.speaker(problem) for problem in t.task.eval}
        solved: dict[int, bool] = {}
        for voice in t.teacher.voices:
            own = [problem for problem in t.task.eval if speakers[problem.id] is voice]
            if not own:
                continue
            found = self._evaluate(t, voice.lm, problems=own, encode=lambda problem, v=voice: v.encode(t.task, problem))
            if found is None:
                return None
            solved |= zip(found.problems, found.correct, strict=True)
            if len(t.teacher.voices) > 1:
                sentence = f"{voice.lm.name} ({voice.path}) solves {found.accuracy:.1%} of its {len(own)} problems"
                self.emit(messages.event("teacher", sentence, accuracy=found.accuracy, problems=len(own)))
        return solved or None

    def _solved_by_server(self, t: Trainer, teacher: RemoteTeacher) -> dict[int, bool] | None:
        if t.task.verify is None or not t.task.eval:
            return None
        if t.task.environment is not None:
            self._warn(
                "the teacher server is not asked to solve problems: it cannot be answered by the tool (task.tool)"
            )
            return None
        with t.budget.phase("evaluation"):
            texts = teacher.solve(t.task.eval, self.spec.rollout.max_new_tokens)
        right = verify(t.task, t.task.eval, texts)
        return {problem.id: bool(correct) for problem, correct in zip(t.task.eval, right, strict=True)}

    def _ood(self, t: Trainer) -> dict[str, float]:
        found = self._evaluate(t, t.student, problems=t.task.ood)
        return {"ood_accuracy": found.accuracy} if found else {}

    def _recovery(self, t: Trainer, written: Evaluation) -> dict[str, float]:
        problems = self.spec.telemetry.recovery_problems
        if not problems or not t.teacher.voices:  # a server only scores
            return {}
        heaviest = max(t.teacher.voices, key=lambda voice: voice.weight)
        helper = heaviest.lm  # it takes over, reading the bare prompt
        if helper is t.student or heaviest.translator is not None:  # it could not go on within the student's tokens
            return {}
        with t.budget.phase("evaluation"), t.autocast:
            found = recovery(
                helper,
                t.task,
                written.rollouts,
                problems=problems,
                max_new_tokens=self.spec.rollout.max_new_tokens,
            )
        t.budget.eval_flops += 2.0 * helper.flop_parameters * found.spent
        return {f"recovery_{percent}": share for percent, share in found.solved.items()}

    def _checkpoint(self, t: Trainer, step: int) -> None:
        with t.budget.phase("checkpoint"):
            # Records first: a resume starts after this step and would never write them again.
            self._write_records()
            progress = checkpoint.Progress(
                step=step,
                cursor=t.order.cursor,
                budget=t.budget.as_dict(),
                accuracy=self.accuracy,
                self_check=self.self_check,
                warnings=self.warnings,
                fingerprint=self.fingerprint,
                running=dict(t.state.running),
                health=self.health,
                findings=self.findings,
                tally=self.tally.sums,
                scalars=list(self.scalars),
            )
            whole = self._gathered(t)
            name, manifest = checkpoint.save(
                self.files, progress, whole.student, whole.moments, t.critic, kept(t), attempt=self.attempt
            )
            self._announce(name, manifest)
            for old in checkpoint.names(self.files)[self.spec.checkpoints.keep_last :]:
                checkpoint.remove(self.files, old)
                self.emit({"type": "checkpoint_removed", "name": old})

    def _gathered(self, t: Trainer) -> Gathered:
        if t.module.sharded:
            t.ranks.tell(GATHER)
        return gathered(t)

    def _announce(self, name: str, manifest: dict[str, Any]) -> None:
        size = sum(file["size"] for file in manifest["files"])
        self.emit({"type": "checkpoint", "name": name, "size_bytes": size, **manifest})

    def _save_if_new(self, t: Trainer, step: int) -> None:
        if step > 0 and not any(name.startswith(f"step-{step:06d}.") for name in checkpoint.names(self.files)):
            self._checkpoint(t, step)

    def _stop(self, t: Trainer, step: int) -> None:
        if step > 0:
            self._checkpoint(t, step)
        t.ranks.tell(OVER)
        t.writer.end()
        raise Stopped

    # -- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, t: Trainer, step: int, student: LanguageModel) -> dict[str, Any]:
        self.emit(messages.phase("finalizing"))
        self._tell_unspent(t, step)
        if self.latest is None and self.accuracy["before"] is not None:
            # Resumed after the last step: the weights are final, but their evaluation was lost with the process.
            self.latest = self._evaluate(t, t.student)
        if self.latest is not None:
            self.accuracy["after"] = self.latest.accuracy
            if self.files.exists(outcomes.FILE):  # a run that an earlier version began has none
                known = self.files.read_json(outcomes.FILE)
                self.files.write_json(outcomes.FILE, outcomes.last(known, self.latest, self._sampled(t)))
        before, after, teacher = (self.accuracy[key] for key in ("before", "after", "teacher"))
        self.accuracy["gap_recovered"] = gap_recovered(before, after, teacher)
        self.emit({"type": "accuracy", **self.accuracy})
        staging = Path(tempfile.mkdtemp(prefix="opd-export-"))
        lora = self.spec.student.lora
        (save_model if lora is None or lora.merge else save_student)(student, staging)
        manifest = {"step": step, "attempt": self.attempt, "kind": "export"}
        self._announce("student", self.files.publish(staging, "student", manifest=manifest))
        report = build_report(
            spec=self.spec,
            recipe=self.recipe,
            steps=step,
            budget=t.budget,
            accuracy=self.accuracy,
            versions={"python": platform.python_version(), **self.fingerprint},
            models={
                "student": _describe(t.student),
                "teacher": _describe_teacher(t.teacher),
                "vocabulary": t.student.vocab_size,
            },
            task={
                "name": t.task.name,
                "train_problems": len(t.task.train),
                "eval_problems": len(t.task.eval),
                "split": "held out; no prompt text is in both",
            },
            self_check=self.self_check,
            warnings=self.warnings,
            health=self.findings,
            tally=self.tally,
            attempt=self.attempt,
        )
        self.files.write_bytes("report.md", as_markdown(report).encode())
        self.files.write_json("report.json", report)
        self.emit({"type": "result", "report": report})
        return report

    def _tell_unspent(self, t: Trainer, step: int) -> None:
        schedule = self.spec.schedule
        if schedule.until is not None and (share := spent(schedule, t.budget)) < 1.0:
            name, limit = schedule.until.limit
            self._warn(
                f"schedule.until.{name}: the run ended at its {step} steps with {share:.1%} of {limit:,.0f} spent; "
                "raise schedule.steps to spend all of it"
            )

    def _warn(self, *sentences: str) -> None:
        for sentence in sentences:
            if sentence not in self.warnings:
                self.warnings.append(sentence)
                self.emit(messages.warning(sentence))


def _same_run(stored: dict[str, Any], spec: JobSpec) -> bool:
    """Whether the stored spec asks for the same run, by however many processes, sharded or not.

    One written before a field existed has the field's default.
    """
    try:
        return _by_one(JobSpec.model_validate(stored)) == _by_one(spec)
    except ValidationError:
        return False


def _by_one(spec: JobSpec) -> JobSpec:
    alone = {"processes": 1, "sharding": "none"}
    return spec.model_copy(update={"resources": spec.resources.model_copy(update=alone)})


def _ascii(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def _describe_teacher(teacher: Teacher) -> dict[str, Any]:
    """One teacher as a model; several with what sets them apart."""
    if isinstance(teacher, RemoteTeacher):
        return {"name": teacher.name, "top_k": teacher.server.endpoint.top_k, "parameters": None}
    described = [{**_describe(voice.lm), **_arrangement(voice)} for voice in teacher.voices]
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


def _describe(lm: LanguageModel) -> dict[str, Any]:
    return {
        "name": lm.name,
        "revision": lm.revision,
        "architecture": type(lm.model).__name__,
        "parameters": count_weights(lm.model),
        **({} if lm.adapter is None else {"adapter_parameters": sum(map(torch.numel, adapter_weights(lm).values()))}),
    }
