"""A task made of the user's own file of prompts, with answers or without."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import chat_tools, contexts, conversations
from opd_core.tasks.files import read_columns
from opd_core.tasks.prompts import Prompts
from opd_core.tasks.split import hold_out
from opd_core.tasks.task import Problem, Task
from opd_core.tasks.verifiers import last_number, make_verifier


def load_dataset_task(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, eos_ids: Sequence[int]) -> Task:
    """Read, render, filter and split ``spec.dataset`` (and ``spec.eval_dataset``, where given)."""
    assert spec.dataset is not None
    prompts = prompts_of(spec, tokenizer)
    warnings: list[str] = []
    read = partial(_read, spec, prompts=prompts, eos_ids=eos_ids, warnings=warnings)
    problems = read(spec.dataset, param="task.dataset", first_id=0)
    if spec.eval_dataset is None:
        train, held_out = hold_out(problems, spec.eval_examples, seed=seed)
        if len(held_out) < spec.eval_examples:
            warnings.append(
                f"task.eval_examples: {spec.eval_examples} were asked for, {len(held_out)} are held out "
                "(at most half of the distinct prompts)"
            )
    else:
        train = problems
        first_id = 1 + max(problem.id for problem in problems)
        held_out = read(spec.eval_dataset, param="task.eval_dataset", first_id=first_id)
        if len(held_out) > spec.eval_examples:
            chosen = random.Random(f"evaluation {seed}").sample(range(len(held_out)), spec.eval_examples)  # noqa: S311
            held_out = [held_out[i] for i in sorted(chosen)]
        trained = {problem.prompt for problem in train}
        overlap = sum(problem.prompt in trained for problem in held_out)
        if overlap:
            warnings.append(f"task.eval_dataset: {overlap} of {len(held_out)} evaluation prompts are also trained on")
    return Task(
        name=spec.dataset,
        train=train,
        eval=held_out,
        verify=make_verifier(spec.verifier) if spec.answer_column is not None else None,
        **contexts.ways(prompts),
        warnings=warnings,
        waits=spec.verifier.kind == "unit_tests",
        by_turns=spec.tool is not None or spec.messages_column is not None,
    )


def prompts_of(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase) -> Prompts:
    """How the student reads a prompt of a user's file, its tool listed where the template lists tools."""
    tools = () if spec.tool is None else (chat_tools.SCHEMA,)
    return Prompts(tokenizer, spec.template, spec.system_prompt, tools=tools)


def _read(
    spec: TaskSpec,
    path: str,
    *,
    prompts: Prompts,
    eos_ids: Sequence[int],
    warnings: list[str],
    param: str,
    first_id: int,
) -> list[Problem]:
    """The usable rows of one file; a problem's id is ``first_id`` + its row number. Dropped rows are counted."""
    source = "prompt_column" if spec.messages_column is None else "messages_column"
    asked = spec.prompt_column if spec.messages_column is None else spec.messages_column
    columns = {f"task.{source}": asked}
    for name in ("answer_column", "demonstration_column", "tag_column"):
        if (column := getattr(spec, name)) is not None:
            columns[f"task.{name}"] = column
    table = read_columns(path, columns, param=param)
    rows = table[asked]
    if not rows:
        raise UserError(f"{param}: '{path}' has no rows", param=param, code="empty_data")
    nothing = [None] * len(rows)
    answers, demonstrations, tags = (
        nothing if column is None else table[column]
        for column in (spec.answer_column, spec.demonstration_column, spec.tag_column)
    )

    problems = []
    no_prompt = no_answer = no_solution = too_long = too_much = 0
    for row, (value, raw_answer, demonstration, tag) in enumerate(
        zip(rows, answers, demonstrations, tags, strict=True)
    ):
        if _is_blank(value):
            no_prompt += 1
            continue
        answer = None if raw_answer is None else str(raw_answer)
        if spec.answer_column is not None:
            if answer is None:
                no_answer += 1
                continue
            _check_answer(spec, answer, row)
        if spec.demonstration_column is not None and _is_blank(demonstration):
            no_solution += 1
            continue
        conversation = None if spec.messages_column is None else conversations.messages_of(value, row)
        raw = _checked_prompt(value, row) if conversation is None else conversations.opening(conversation)
        text = prompts.render(raw)
        if not 1 <= len(prompts.encode(text)) <= spec.max_prompt_tokens:
            too_long += 1
            continue
        transcript = None
        if conversation is not None:
            transcript = conversations.transcript(prompts, conversation, eos_ids, row)
            if transcript.own.count(False) > spec.max_prompt_tokens:
                too_much += 1
                continue
        problems.append(
            Problem(
                first_id + row,
                text,
                answer,
                raw=raw,
                demonstration=None if demonstration is None else str(demonstration),
                tag=None if tag is None else str(tag),
                transcript=transcript,
            )
        )

    dropped = {
        f"an empty '{asked}'": no_prompt,
        f"no '{spec.answer_column}'": no_answer,
        f"an empty '{spec.demonstration_column}'": no_solution,
        f"a prompt of more than {spec.max_prompt_tokens} tokens": too_long,
        f"more than {spec.max_prompt_tokens} tokens between the assistant's": too_much,
    }
    reasons = " and ".join(f"{count} with {reason}" for reason, count in dropped.items() if count)
    if not problems:
        raise UserError(
            f"{param}: none of the {len(rows)} rows of '{path}' can be used: {reasons}",
            param="task.max_prompt_tokens" if too_long == len(rows) else param,
            code="empty_data",
        )
    if reasons:
        warnings.append(f"{param}: {len(rows) - len(problems)} of {len(rows)} rows are left out: {reasons}")
    return problems


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, list) and not value)


def _checked_prompt(value: Any, row: int) -> str | Sequence[Mapping[str, Any]]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(message, Mapping) for message in value):
        return value
    raise UserError(
        f"task.prompt_column: row {row} holds a {type(value).__name__}; a prompt is a text or a list of messages",
        param="task.prompt_column",
        code="broken_data",
    )


def _check_answer(spec: TaskSpec, answer: str, row: int) -> None:
    if spec.verifier.kind == "last_number" and last_number(answer) is None:
        raise UserError(
            f"task.verifier: 'last_number' needs a number in every answer, row {row} has {answer[:80]!r}",
            param="task.verifier.kind",
            code="broken_data",
        )
