"""A whole run, from a resolved spec and an output directory to a checkpoint and a report."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from opd_core.diagnostics import health
from opd_core.models import LanguageModel, save_model, save_student
from opd_core.recipes import Recipe, load, resolve
from opd_core.runs.artifacts import RunFiles
from opd_core.servers import ServerUnreachable
from opd_core.spec import JobSpec, UserError
from opd_core.training import checkpoint, messages, outcomes
from opd_core.training.describe import describe_models, describe_task
from opd_core.training.device import precision, set_up_torch
from opd_core.training.evaluation import Evaluation
from opd_core.training.examiner import Examiner
from opd_core.training.fingerprint import differences, fingerprint
from opd_core.training.first_check import first_check, least_aligned
from opd_core.training.messages import Emit
from opd_core.training.prepare import kept, prepare, restore
from opd_core.training.ranks import GATHER, OVER, Ranks
from opd_core.training.recorder import Recorder
from opd_core.training.report import as_markdown, build_report, gap_recovered
from opd_core.training.schedule import spent
from opd_core.training.sharded import Gathered, gathered, shard
from opd_core.training.step import Trainer, train_step
from opd_core.training.tally import Tally
from opd_core.training.team import team

_SCALARS_AGAIN = 100  # of the newest steps are said again on a resume


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
        self.recorder = Recorder(files, attempt=attempt, emit=emit)
        self.recent: deque[float] = deque(maxlen=20)  # seconds of the last steps, for the ETA
        self.scalars: deque[tuple[int, dict[str, float]]] = deque(maxlen=_SCALARS_AGAIN)

    def run(self, device: torch.device, ranks: Ranks) -> dict[str, Any]:
        began = time.perf_counter()
        t = prepare(self.spec, self.files, device, ranks=ranks, attempt=self.attempt, emit=self.emit, warn=self._warn)
        ranks.tell({})  # only now do the others load: what the user has to put right is said once
        if self.spec.resources.sharding == "fsdp2":
            shard(t, device)
        self.examiner = Examiner(t, self.emit, self._warn)
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
        self.self_check = first_check(t, self.emit, self._warn)
        self.emit(messages.phase("evaluating teacher and student"))
        solved = self.examiner.teachers()
        taught = None if solved is None else sum(solved.values()) / len(solved)
        before = self.examiner.student()
        self.accuracy["teacher"] = taught
        self.accuracy["before"] = before.accuracy if before else None
        if before:
            self.files.write_json(outcomes.FILE, outcomes.first(before, solved, self.examiner.sampled()))
        if taught is not None and before:
            self.emit({"type": "accuracy", "before": before.accuracy, "teacher": taught})
            self._say_scalars(0, self._examined(before))
            self.latest = before
            if taught <= before.accuracy:
                self._warn(
                    f"the teacher ({taught:.1%}) is no better than the student ({before.accuracy:.1%}) on the "
                    "evaluation split: there is little to learn from it here"
                )

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
            self.recorder.take(step, result)
        metrics = result.metrics
        self.tally.add(metrics)
        self._watch(step, metrics)
        schedule = self.spec.schedule
        last = self._over(t, step)
        if last or (schedule.evaluate_every and step % schedule.evaluate_every == 0):
            found = self.examiner.student()
            if found:
                self.latest = found
                metrics |= self._examined(found)
        self.recent.append(time.perf_counter() - started)
        self._say_scalars(step, metrics)
        self._say_progress(t, step, metrics)
        regular = last or (schedule.checkpoint_every and step % schedule.checkpoint_every == 0)
        if self.should_save() or regular:  # asked first: a regular one fulfils the wish as well
            self._checkpoint(t, step)

    def _examined(self, found: Evaluation) -> dict[str, float]:
        return {"accuracy": found.accuracy, "eval_length": found.mean_length, **self.examiner.beyond(found)}

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
        if metrics.get("aligned", 1.0) < least_aligned(self.spec):
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

    def _checkpoint(self, t: Trainer, step: int) -> None:
        with t.budget.phase("checkpoint"):
            self.recorder.write()
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
            self.latest = self.examiner.student()
        if self.latest is not None:
            self.accuracy["after"] = self.latest.accuracy
            if self.files.exists(outcomes.FILE):  # a run that an earlier version began has none
                known = self.files.read_json(outcomes.FILE)
                self.files.write_json(outcomes.FILE, outcomes.last(known, self.latest, self.examiner.sampled()))
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
            models=describe_models(t.student, t.teacher),
            task=describe_task(t.task),
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
