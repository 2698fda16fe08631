"""What a job asks for."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from opd_core.spec.base import Spec
from opd_core.spec.errors import UserError
from opd_core.spec.method import MethodSpec
from opd_core.spec.model import ModelSpec
from opd_core.spec.processes import check_processes
from opd_core.spec.rollout import RolloutSpec
from opd_core.spec.states import check_states, state_warnings
from opd_core.spec.student import StudentSpec
from opd_core.spec.teacher import TeacherSpec, Voice
from opd_core.spec.tool import Tool
from opd_core.spec.weights import check_weights, weights_warnings

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.:-]{0,95}$")]
Label = Annotated[str, StringConstraints(max_length=256)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Priority = Annotated[int, Field(ge=-10, le=10)]
Metadata = Annotated[dict[Key, Label], Field(max_length=32)]


class Verifier(Spec):
    """Scores an answer as right or wrong."""

    kind: Literal["exact_match", "last_number", "regex", "math", "unit_tests"] = Field(
        "exact_match",
        description="exact_match: all of the completion. last_number: its last number. regex: what a pattern finds. "
        "math: the same mathematical meaning. unit_tests: the answer is Python that tests the completion's program, "
        "run in a sandbox where the operator allows it.",
    )
    pattern: str | None = Field(
        None,
        max_length=512,
        description="regex only: the first group (or the whole match) of the last match is compared with the answer.",
    )

    @model_validator(mode="after")
    def _pattern_goes_with_regex(self) -> Verifier:
        if self.kind == "regex":
            if not self.pattern:
                raise ValueError("verifier.kind 'regex' needs verifier.pattern")
            try:
                re.compile(self.pattern)
            except (re.error, OverflowError) as error:
                raise ValueError(f"verifier.pattern is not a regular expression: {error}") from error
        elif self.pattern is not None:
            raise ValueError(f"verifier.pattern is only for verifier.kind 'regex', not '{self.kind}'")
        return self


class TaskSpec(Spec):
    """Where prompts and answers come from: a built-in task, or a file of the user's."""

    name: str | None = Field(
        None,
        pattern=r"^demo/[a-z0-9-]+$",
        examples=["demo/word-problems"],
        description="A built-in task: demo/word-problems, demo/word-problems-short or demo/word-problems-long with "
        "demo/student; demo/synonyms, demo/synonyms-near or demo/synonyms-far with demo/synonyms-student; "
        "demo/detours, demo/detours-few or demo/detours-many with demo/detours-student; demo/tools with "
        "demo/tools-student.",
    )
    dataset: str | None = Field(
        None,
        max_length=1024,
        description="A .jsonl, .json, .parquet or .csv file below an allowed data root.",
    )
    prompt_column: str = Field("prompt", max_length=128)
    answer_column: str | None = Field(
        None, max_length=128, description="Without it nothing is verified and no accuracy is reported."
    )
    messages_column: str | None = Field(
        None,
        max_length=128,
        description="Whole conversations as lists of messages, in place of prompt_column: what stands before the first "
        "assistant turn is the prompt; from there on rows from data have the assistant's turns as actions, and what "
        "user and tool say between them as context without force and time.",
    )
    demonstration_column: str | None = Field(
        None,
        max_length=128,
        description="Worked solutions: what rows from data, golden data and {demonstration} of a teacher's context "
        "are made of.",
    )
    tag_column: str | None = Field(
        None, max_length=128, description="Names the kind of each problem, for teachers that speak for some kinds only."
    )
    system_prompt: str | None = Field(None, max_length=8192)
    template: Literal["auto", "chat", "plain"] = Field(
        "auto",
        description="chat = the student tokenizer's chat template; auto = chat where it has one, else plain.",
    )
    verifier: Verifier = Verifier()
    eval_examples: int = Field(
        200,
        ge=0,
        le=10_000,
        description="Held-out problems for evaluation, never trained on (at most half of a file).",
    )
    eval_dataset: str | None = Field(None, max_length=1024, description="A separate evaluation file.")
    ood_examples: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Longer problems than any of training, solved with every evaluation (metric ood_accuracy); for "
        "demo/word-problems-short, demo/tools and all levels of demo/synonyms and demo/detours, which have some.",
    )
    max_prompt_tokens: int = Field(
        1024,
        ge=1,
        le=131_072,
        description="Longer prompts are left out; so are conversations in which others than the assistant say more.",
    )
    tool: Tool | None = Field(
        None,
        description="Answers the student in the middle of a rollout. demo/tools has its calculator without it; a file "
        "of your own needs a chat template that has tool messages.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> TaskSpec:
        if (self.name is None) == (self.dataset is None):
            raise ValueError("give exactly one of task.name (a built-in task) and task.dataset (your file)")
        if self.messages_column is not None and self.dataset is None:
            raise ValueError(f"task.messages_column: '{self.messages_column}' names a column of a file (task.dataset)")
        return self


_AUTO_MICRO_TOKENS = 16_384


class BatchingSpec(Spec):
    """How one step is cut into pieces that fit the memory. It never changes the update."""

    micro_tokens: int | Literal["auto"] = Field(
        "auto", description="Tokens (prompt + completion, padded) per gradient micro-batch; auto = 16384."
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Keep each layer's input only and compute the rest again in the backward pass: several times less "
        "memory for activations, a third more work for the student.",
    )

    @property
    def tokens(self) -> int:
        """``micro_tokens`` as a number."""
        return _AUTO_MICRO_TOKENS if self.micro_tokens == "auto" else self.micro_tokens

    @field_validator("micro_tokens")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or 'auto'")
        return value


class OptimizerSpec(Spec):
    """AdamW with warm-up and decay."""

    lr: float = Field(1e-5, gt=0.0, le=1.0)
    warmup_steps: int = Field(10, ge=0)
    decay: Literal["linear", "cosine", "constant"] = "linear"
    min_lr_ratio: float = Field(0.0, ge=0.0, le=1.0)
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = Field(1.0, gt=0.0)

    @field_validator("betas")
    @classmethod
    def _betas(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0.0 <= beta < 1.0 for beta in value):
            raise ValueError("each beta must be in [0, 1)")
        return value


class Until(Spec):
    """A budget that ends the run: exactly one of these. What runs are compared at is better spent than assumed."""

    student_tokens: int | None = Field(None, ge=1, description="Completion tokens that the student generates.")
    teacher_tokens: int | None = Field(None, ge=1, description="Tokens that the teachers read to score rows.")
    flops: float | None = Field(None, gt=0.0, description="Estimated floating-point operations of training.")
    wall_s: float | None = Field(
        None, gt=0.0, description="Seconds of training steps; such a run is not the same bit for bit when repeated."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Until:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(type(self).model_fields)}, not {' and '.join(given) or 'none'}"
            )
        return self

    @property
    def limit(self) -> tuple[str, float]:
        """The budget's name and size."""
        ((name, size),) = self.model_dump(exclude_none=True).items()
        return name, size


class ScheduleSpec(Spec):
    """How long, and what happens how often."""

    steps: int = Field(100, ge=1, le=1_000_000, description="With until: at most so many.")
    until: Until | None = Field(
        None,
        description="The run ends after the step that reaches this budget; the learning rate then decays with the "
        "larger of the shares of steps and budget that are spent.",
    )
    evaluate_every: int = Field(25, ge=0, description="0 = only before the first and after the last step.")
    pass_at_k: int = Field(
        0,
        ge=0,
        le=64,
        description="Samples of each held-out problem, before the first and after the last step, at the temperature "
        "and top_p of rollout: the share of problems that one of them solves. 0 leaves it out.",
    )
    checkpoint_every: int = Field(25, ge=0, description="0 = only after the last step.")
    max_runtime_s: int = Field(86_400, ge=1, le=30 * 86_400)
    max_restarts: int = Field(
        3,
        ge=0,
        le=1000,
        description="How often the job is started again after its trainer or its worker was lost; then it fails. "
        "Pauses and orderly shutdowns do not count.",
    )


class CheckpointsSpec(Spec):
    """How many training checkpoints stay."""

    keep_last: int = Field(2, ge=1, le=1000)


LARGEST_TOP_K = 64


class TelemetrySpec(Spec):
    """What is recorded of each step, token by token. It never changes the weights."""

    sequences_per_step: int = Field(8, ge=0, le=256)
    every_n_steps: int = Field(1, ge=1, le=10_000)
    top_k: int = Field(
        32,
        ge=1,
        le=LARGEST_TOP_K,
        description="Favourites of both models that are kept for each token (0.5 KB per token at 32, 0.2 KB at 8); "
        "more where the method itself looks at more. What-if questions take the rest of the vocabulary as flat.",
    )
    probe_states: int = Field(32, ge=0, le=512, description="States re-scored after the update, from <= 2 sequences.")
    recovery_problems: int = Field(
        16,
        ge=0,
        le=1024,
        description="Held-out problems of which the teacher takes over the student's solution at 20, 40, 60 and 80 % "
        "with every evaluation; 0 leaves it out.",
    )


class ResourcesSpec(Spec):
    """Where the job runs."""

    queue: str = Field("cpu", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes of one machine that share each step (data parallelism); on GPUs each needs one of its "
        "own.",
    )
    sharding: Literal["none", "fsdp2"] = Field(
        "none",
        description="none = each process holds all of student and optimizer. fsdp2 = weights, gradients and optimizer "
        "state of the student are spread over the processes (two at least); beside its part each holds a copy of the "
        "student to write with, in the compute precision, and all of teachers and reference.",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "auto",
        description="Compute precision; weights are always float32. auto = bfloat16 on a GPU, float32 on a CPU.",
    )
    threads: int | Literal["auto"] = Field(
        "auto", description="CPU threads of each process of the trainer; auto = the worker decides."
    )

    @field_validator("threads")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= 1024:
            raise ValueError("must be between 1 and 1024, or 'auto'")
        return value


class StartSpec(Spec):
    """A saved student of another job of the same service: this job's student starts with its weights.

    Steps, optimizer and critic start anew. The weights are copied when the job is accepted.
    """

    job: str = Field(pattern=r"^[a-z0-9_]{1,48}$", description="The id of the job that was trained before.")
    checkpoint: str | None = Field(
        None, pattern=r"^[a-z0-9_]{1,48}$", description="The id of one of its checkpoints; default: the newest."
    )


class JobSpec(Spec):
    """A whole job. ``recipe`` is the starting point, ``method`` overrides it variable by variable."""

    # "from" is no name in Python
    model_config = ConfigDict(serialize_by_alias=True)

    name: Name
    from_: StartSpec | None = Field(
        None, alias="from", description="Start from another job's checkpoint; the student must be the same model."
    )
    student: StudentSpec
    teacher: TeacherSpec | None = Field(
        None, description="May be left out where the recipe brings its own (the student itself)."
    )
    task: TaskSpec
    recipe: str = Field("forward-kl", pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    method: dict[str, Any] = Field(
        default_factory=dict, description="Overrides of the recipe's method, see /v1/recipes/{name}."
    )
    rollout: RolloutSpec = RolloutSpec()
    batching: BatchingSpec = BatchingSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    checkpoints: CheckpointsSpec = CheckpointsSpec()
    telemetry: TelemetrySpec = TelemetrySpec()
    resources: ResourcesSpec = ResourcesSpec()
    priority: Priority = Field(0, description="Of the jobs that wait on a queue, the highest starts first.")
    seed: int = Field(0, ge=0, le=2**31 - 1)
    metadata: Metadata = Field(default_factory=dict)

    def method_spec(self) -> MethodSpec:
        """The method of a resolved spec (``opd_core.recipes.resolve``), where ``method`` is complete."""
        return MethodSpec.model_validate(self.method)

    def check_method(self) -> None:
        """What a resolved method needs of the rest of the job. Raises UserError."""
        method = self.method_spec()
        if "group" in method.needs and self.rollout.samples_per_prompt < 2:
            raise UserError(
                f"rollout.samples_per_prompt: {self.rollout.samples_per_prompt} is too few: "
                f"{_compares_samples(method)} compares the samples of one prompt, so at least 2 are needed",
                param="rollout.samples_per_prompt",
            )
        if "reward" in method.needs and self.task.name is None and self.task.answer_column is None:
            raise UserError(
                f"task.answer_column: null gives the verifier nothing to compare with, and {_compares_samples(method)} "
                "needs its rewards: name the column of the answers",
                param="task.answer_column",
            )
        check_states(self, method)
        check_processes(self)
        check_weights(self)

    def voices(self) -> list[tuple[str, Voice]]:
        """Every teacher with the path of its field. Raises UserError where there is none."""
        if self.teacher is None:
            raise UserError(
                "teacher: is missing: give a model, self or a mixture (a recipe such as 'opsd' brings its own)",
                param="teacher",
            )
        return self.teacher.voices()

    def models(self) -> list[tuple[str, ModelSpec]]:
        """Every model to load, with the path of its field."""
        found: list[tuple[str, ModelSpec]] = [("student.model", self.student)]
        for path, voice in self.voices():
            reference = voice.reference()
            if reference is not None:
                found.append((f"{path}.model", reference))
        return found

    def warnings(self) -> list[str]:
        """Known biases of a resolved spec, in sentences that are stored on the run."""
        method = self.method_spec()
        sampling = self._sampling_warnings()
        return [*method.warnings(), *sampling, *state_warnings(self, method), *weights_warnings(self)]

    def _sampling_warnings(self) -> list[str]:
        """Sampled-token updates are expectations over the student's own choices: others have to be weighted."""
        method, rollout = self.method_spec(), self.rollout
        if method.support.kind != "sampled":
            return []
        found = []
        tempered = rollout.temperature != method.objective.temperature
        if method.importance.kind == "none" and (tempered or rollout.top_p < 1.0):
            found.append(
                f"rollouts are sampled at rollout.temperature {rollout.temperature} and top_p {rollout.top_p}, the "
                f"update is an expectation at objective.temperature {method.objective.temperature}: with "
                "importance.kind 'none' it is biased; 'truncated' corrects it"
            )
        if rollout.top_p < 1.0:
            found.append(
                f"rollout.top_p {rollout.top_p} never lets the least likely tokens through: what is not sampled gets "
                "no update, which no importance weight can correct (top_p 1 has no such bias)"
            )
        return found


def _compares_samples(method: MethodSpec) -> str:
    """Which part of the method looks at rewards or at the samples of one prompt."""
    for regularizer in method.regularizers:
        if regularizer.kind in ("reward", "reward_sign"):
            return f"regularizers: '{regularizer.kind}'"
    for gate in method.gates:
        if gate.kind in ("scope", "agreement"):
            return f"gates: '{gate.kind}'"
    return f"credit.baseline '{method.credit.baseline}'"
