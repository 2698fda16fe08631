"""TRL's DistillationTrainer on a job of ours: same models, same prompts in the same order, same optimizer and rate.

What is its own: sampling (model.generate), scoring, loss and step, in its released code. What is set away from its
defaults, in its favour: float32 as ours on a CPU, no gradient checkpointing, no logging beyond its metrics. With
``own_precision`` its defaults stay: bfloat16 and gradient checkpointing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import datasets
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from trl import DistillationConfig, DistillationTrainer

from opd_core.models import LanguageModel, load_model
from opd_core.spec import JobSpec, ModelSpec
from opd_core.tasks import Task, load_task
from opd_core.training.budget import Budget
from opd_core.training.prompts import PromptOrder
from opd_core.training.schedule import learning_rate, spent


@dataclass
class Session:
    """One run of TRL. ``budget`` counts as ours does; ``step_s`` are the seconds of each step."""

    spec: JobSpec
    student: LanguageModel
    teacher: LanguageModel
    task: Task
    own_precision: bool = False
    budget: Budget = field(default_factory=Budget)
    step_s: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # completion tokens of each step
    phase_s: dict[str, list[float]] = field(default_factory=lambda: {"rollout": [], "teacher": []})  # of each step
    lengths: list[float] = field(default_factory=list)
    truncated: list[float] = field(default_factory=list)

    @classmethod
    def load(cls, spec: JobSpec, teacher: ModelSpec, *, own_precision: bool = False) -> Session:
        """The models and the task of a resolved spec."""
        dtype = torch.bfloat16 if own_precision else torch.float32
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        student = load_model(spec.student, device=device, trainable=True, role="student", dtype=dtype)
        other = load_model(teacher, device=device, trainable=False, role="teacher", dtype=dtype)
        task = load_task(spec.task, student.tokenizer, seed=spec.seed, vocab_size=student.vocab_size)
        return cls(spec, student, other, task, own_precision)

    def train(
        self, folder: str, *, beta: float, after: Callable[[int], bool], generation: dict[str, Any] | None = None
    ) -> None:
        """Train until ``after(step)`` is true, at most ``schedule.steps``; beta 0 = forward KL, 1 = reverse KL.

        ``generation`` goes to the sampler, e.g. to force equal lengths.
        """
        spec, rollout = self.spec, self.spec.rollout
        rows = rollout.prompts_per_step * rollout.samples_per_prompt
        problems = PromptOrder(self.task.train, seed=spec.seed).take(spec.schedule.steps * rollout.prompts_per_step)
        prompts = [problem.prompt for problem in problems for _ in range(rollout.samples_per_prompt)]
        optimizer = torch.optim.AdamW(
            self.student.model.parameters(),
            lr=spec.optimizer.lr,
            betas=spec.optimizer.betas,
            weight_decay=spec.optimizer.weight_decay,
        )
        settings = DistillationConfig(
            output_dir=folder,
            per_device_train_batch_size=rows,
            max_steps=spec.schedule.steps,
            max_completion_length=rollout.max_new_tokens,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            beta=beta,
            max_grad_norm=spec.optimizer.max_grad_norm,
            seed=spec.seed,
            bf16=self.own_precision,
            gradient_checkpointing=self.own_precision,
            use_cpu=not torch.cuda.is_available(),
            shuffle_dataset=False,
            logging_steps=1,
            logging_strategy="steps",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            generation_kwargs=generation,
        )
        trainer = DistillationTrainer(
            model=self.student.model,
            teacher_model=self.teacher.model,
            args=settings,
            train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
            processing_class=self.student.tokenizer,
            callbacks=[_Watch(self, rows, after)],
            optimizers=(optimizer, LambdaLR(optimizer, self._rate)),
        )
        trainer._generate = self._timed("rollout", trainer._generate)
        # Student and teacher go through one function; the teacher's weights take no gradient.
        trainer._get_last_hidden_state = self._timed("teacher", trainer._get_last_hidden_state, self._is_teacher)
        trainer.train()
        self.student.model.eval()

    def _is_teacher(self, model: Any, *_: Any) -> bool:
        return not any(parameter.requires_grad for parameter in model.parameters())

    def _timed(self, phase: str, function: Any, when: Callable[..., bool] = lambda *_: True) -> Any:
        def run(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = function(*arguments, **named)
            if when(*arguments):
                step = len(self.step_s)
                seconds = self.phase_s[phase]
                seconds.extend([0.0] * (step + 1 - len(seconds)))
                seconds[step] += time.perf_counter() - began
            return result

        return run

    def _rate(self, steps_done: int) -> float:
        optimizer, schedule = self.spec.optimizer, self.spec.schedule
        step = min(steps_done + 1, schedule.steps)
        return learning_rate(optimizer, step, schedule.steps, spent(schedule, self.budget)) / optimizer.lr

    def count(self, rows: int, metrics: dict[str, float], seconds: float) -> None:
        """Count one step, from the trainer's own metrics."""
        written = round(metrics["completions/mean_length"] * rows)
        read = int(metrics["num_tokens"]) - self.budget.teacher_tokens  # prompts and completions, since the start
        self.budget.student_tokens += written
        self.budget.teacher_tokens += read
        # Our own count for the same work: sampling, scoring, forward and backward.
        self.budget.flops += read * (8.0 * self.student.flop_parameters + 2.0 * self.teacher.flop_parameters)
        self.budget.wall_s_by_phase["update"] += seconds  # it does not tell its phases apart
        self.step_s.append(seconds)
        self.tokens.append(written)
        self.lengths.append(metrics["completions/mean_length"])
        self.truncated.append(metrics["completions/clipped_ratio"])


class _Watch(TrainerCallback):
    """Times each step (evaluations outside of it), counts it, and asks whether to go on."""

    def __init__(self, session: Session, rows: int, after: Callable[[int], bool]) -> None:
        self._session, self._rows, self._after = session, rows, after
        self._seconds = self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._seconds = time.perf_counter() - self._began

    def on_log(self, _: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        if logs is None or "completions/mean_length" not in logs:
            return  # the summary at the end
        self._session.count(self._rows, logs, self._seconds)
        control.should_training_stop = self._after(state.global_step)
