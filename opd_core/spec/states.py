"""State compatibility: which methods fit who writes and what the teacher reads (arXiv 2606.22793, first variable)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from opd_core.spec.combinations import teacher_must_give
from opd_core.spec.errors import UserError
from opd_core.spec.method import MethodSpec
from opd_core.spec.teacher import MixturePart
from opd_core.spec.tool import TOOL_TASK

if TYPE_CHECKING:
    from opd_core.spec.job import JobSpec


def check_states(spec: JobSpec, method: MethodSpec) -> None:
    """Raise UserError where the states or the teacher's context ask for what the job does not give."""
    _check_writers(spec, method)
    _check_endpoint(spec, method)
    _check_rollout_server(spec)
    _check_tokenizer(spec)
    _check_data(spec)
    _check_contexts(spec)
    tagged = any(isinstance(voice, MixturePart) and voice.tags for _, voice in spec.voices())
    if tagged and spec.task.name is None and spec.task.tag_column is None:
        raise UserError(
            "task.tag_column: null tells no kinds of problems apart, and teachers of teacher.mixture speak for tags: "
            "name the column of the tags",
            param="task.tag_column",
        )


def _check_writers(spec: JobSpec, method: MethodSpec) -> None:
    writers = spec.rollout.written_by
    if "origin" in method.needs and writers.data == 0:
        raise UserError(
            "method.regularizers: 'golden' imitates rows taken from data, and rollout.written_by.data is 0: give data "
            "a share of the rows, or leave it out",
            param="method.regularizers",
        )
    if writers.data > 0 and method.support.kind == "sampled" and "origin" not in method.needs:
        raise UserError(
            f"rollout.written_by.data: {writers.data:g}: this method weighs sampled tokens by the probability with "
            "which they were sampled, and rows from data have none; use a support that compares distributions, or "
            "imitate these rows with regularizers: [{kind: golden}]",
            param="rollout.written_by.data",
        )
    if writers.student == 0 and spec.rollout.replay is not None:
        raise UserError("rollout.replay: keeps rows that the student wrote, and it writes none", param="rollout.replay")


def _check_endpoint(spec: JobSpec, method: MethodSpec) -> None:
    """A server knows single tokens, and writes nothing for us. Which tokens is asked when the job starts."""
    if spec.teacher is None or spec.teacher.endpoint is None:
        return
    given = teacher_must_give(method)
    if "whole vocabulary" in given:
        raise UserError(
            f"teacher.endpoint: this method needs {given}, and a teacher server gives those of the written token, of "
            "its own favourites and, where it scores given candidates, of the student's: use method.support {kind: "
            "teacher_top_k}, {kind: intersection} or {kind: sampled}, or with such a server {kind: student_top_k} or "
            "{kind: union}, without other temperatures and targets (recipes such as topk-forward-kl, tml-opd, vopd, "
            "cr-opd; topk-tail, union-topk)",
            param="method.support",
        )
    if spec.rollout.teacher_writes:
        raise UserError(
            "rollout: asks the teacher to write, and a teacher server (teacher.endpoint) only scores", param="rollout"
        )


def _check_rollout_server(spec: JobSpec) -> None:
    """A server samples from the student alone, with a cache of its own."""
    rollout = spec.rollout
    if rollout.endpoint is None:
        return
    if rollout.written_by.student == 0:
        raise UserError("rollout.endpoint: writes the student's rows, and it writes none", param="rollout.endpoint")
    if spec.task.tool is not None or spec.task.name == TOOL_TASK:
        raise UserError(
            "rollout.endpoint: a server writes to the end of a completion, and this task's tool answers in the middle "
            "of it (task.tool); leave rollout.endpoint out",
            param="rollout.endpoint",
        )
    if rollout.teacher_mix > 0:
        raise UserError(
            f"rollout.teacher_mix: {rollout.teacher_mix:g} is not possible with rollout.endpoint: a server samples "
            "from the student alone; use 0, or leave rollout.endpoint out",
            param="rollout.teacher_mix",
        )


def _check_tokenizer(spec: JobSpec) -> None:
    """What a teacher with another tokenizer writes is no tokens of the student's."""
    if spec.teacher is None or spec.teacher.tokenizer is None:
        return
    if spec.rollout.teacher_writes:
        raise UserError(
            "rollout: asks the teacher to write, and what a teacher with another tokenizer (teacher.tokenizer) writes "
            "is no tokens of the student's",
            param="rollout",
        )
    if spec.rollout.prefix is not None:
        raise UserError(
            "rollout.prefix: begins within a completion, which a teacher with another tokenizer (teacher.tokenizer) "
            "reads as a whole; leave it out",
            param="rollout.prefix",
        )


def _check_data(spec: JobSpec) -> None:
    told = any("demonstration" in voice.places for _, voice in spec.voices())
    wanted = told or (spec.rollout.data_writes and spec.task.messages_column is None)
    if wanted and spec.task.name is None and spec.task.demonstration_column is None:
        raise UserError(
            "task.demonstration_column: null names no worked solutions, and rollout or teacher.context asks for them "
            "(rollout takes conversations too: task.messages_column)",
            param="task.demonstration_column",
        )


def _check_contexts(spec: JobSpec) -> None:
    answers = spec.task.name is not None or spec.task.answer_column is not None
    for path, voice in spec.voices():
        if voice.places & {"answer", "solution"} and not answers:
            raise UserError(
                f"{path}.context: it shows answers or right solutions, and task.answer_column is null",
                param="task.answer_column",
            )
        if "solution" in voice.places and spec.rollout.samples_per_prompt < 2:
            raise UserError(
                f"{path}.context: {{solution}} is a right rollout of the same prompt, so "
                f"rollout.samples_per_prompt must be at least 2 (it is {spec.rollout.samples_per_prompt})",
                param="rollout.samples_per_prompt",
            )


def state_warnings(spec: JobSpec, method: MethodSpec) -> Iterator[str]:
    """Known biases of states that are not the student's own."""
    rollout = spec.rollout
    if method.support.kind == "sampled" and not rollout.on_policy and method.importance.kind == "none":
        yield (
            "rows come from teacher, data or earlier steps too (rollout), and the update is an expectation over the "
            "student's own choices: with importance.kind 'none' it is biased; 'truncated' corrects it"
        )
    if rollout.written_by.student < 1.0:
        yield (
            f"{1 - rollout.written_by.student:.0%} of the rows are not the student's own: at those states nothing says "
            "what the student does when it is alone"
        )
    if rollout.endpoint is not None:
        yield (
            f"the student's rows are written by the server {rollout.endpoint!r} (rollout.endpoint), which draws its "
            "own chances: a run that is resumed or repeated is not bit for bit the same"
        )
    if spec.teacher is not None and spec.teacher.endpoint is not None:
        given = teacher_must_give(method)
        if "enough of the vocabulary" in given:
            yield (
                "the teacher server gives its favourites only: KL, entropy and expected baselines take the rest of its "
                "mass as spread evenly over the other tokens"
            )
    if spec.teacher is not None and spec.teacher.tokenizer is not None:
        yield (
            "the teacher has another tokenizer (teacher.tokenizer): student and teacher are compared where both "
            "tokenize alike, given the tokens that both have; nothing is said of other tokens (metrics aligned, "
            "aligned_student_mass, aligned_teacher_mass)"
        )
        if method.objective.route == "log_ratio" and method.credit.discount > 0.0:
            yield (
                "tokens that are not aligned (teacher.tokenizer) have no log-ratio, so credit over time "
                f"(credit.estimator '{method.credit.estimator}') sums over the others only"
            )
    if any(voice.places & {"answer", "demonstration", "solution"} for _, voice in spec.voices()):
        yield (
            "the teacher reads what the student does not (teacher.context): what it knows from there and the student "
            "cannot know is averaged out at best, and can leak as guessing at worst"
        )
