"""From a task spec to a ``Task``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from opd_core.spec import TaskSpec, Tool, UserError
from opd_core.tasks import chat_tools, detours, synonyms, tools, word_problems
from opd_core.tasks.dataset import load_dataset_task, prompts_of
from opd_core.tasks.environment import Disagreement, Environment
from opd_core.tasks.task import Task

BUILT_IN = {
    name: (made.WRITING, level)
    for made in (word_problems, synonyms, detours, tools)
    for name, level in made.LEVELS.items()
}
"""Task -> how its problems are worked, and which problems it has."""


def load_task(
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    vocab_size: int | None = None,
    eos_ids: Sequence[int] | None = None,
) -> Task:
    """Load the built-in task or the user's file that ``spec`` names.

    ``vocab_size`` is the number of ids that student and teacher share (``check_vocabularies``): prompts with ids
    beyond it are refused. ``eos_ids`` end a completion (default: the tokenizer's own). UserError for whatever is wrong
    with the spec or the data.
    """
    longer = [name for name, (_, level) in BUILT_IN.items() if level.longer]
    if spec.ood_examples and spec.name not in longer:
        raise UserError(
            f"task.ood_examples: '{spec.name or spec.dataset}' has no longer problems ({', '.join(longer)} have)",
            param="task.ood_examples",
            code="no_longer_problems",
        )
    ends = (tokenizer.eos_token_id,) if eos_ids is None else eos_ids
    if spec.dataset is not None:
        task = load_dataset_task(spec, tokenizer, seed=seed, eos_ids=ends)
    elif spec.name in BUILT_IN:
        writing, level = BUILT_IN[spec.name]
        task = word_problems.load(spec, tokenizer, seed=seed, level=level, writing=writing)
    else:
        raise UserError(
            f"task.name: there is no built-in task '{spec.name}' (there are {', '.join(BUILT_IN)})",
            param="task.name",
            code="unknown_task",
        )
    task = replace(task, environment=environment_of(spec, tokenizer, ends))
    if spec.dataset is not None and spec.tool is not None:
        _check_solutions(task)
    if vocab_size is not None:
        _check_ids(task, tokenizer, vocab_size)
    return task


def environment_of(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, eos_ids: Sequence[int]) -> Environment | None:
    """What answers the student while it writes, where the task has a tool. Raises UserError."""
    if spec.dataset is not None:
        return None if spec.tool is None else chat_tools.environment(spec.tool, prompts_of(spec, tokenizer), eos_ids)
    assert spec.name is not None
    writing, _ = BUILT_IN[spec.name]
    if writing.environment is not None:
        return writing.environment(tokenizer, (spec.tool or Tool()).turns)
    if spec.tool is not None:
        raise UserError(
            f"task.tool: '{spec.name}' has no words to ask for it; {tools.TASK} has, and files of your own with a chat "
            "template",
            param="task.tool",
        )
    return None


def _check_ids(task: Task, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    for problem in (*task.train, *task.eval, *task.ood):
        after = [] if problem.transcript is None else problem.transcript.ids
        unknown = [i for i in (*task.encode(problem), *after) if i >= vocab_size]
        if unknown:
            raise UserError(
                f"task: the {'conversation' if after else 'prompt'} of problem {problem.id} uses the token "
                f"{tokenizer.convert_ids_to_tokens(unknown[0])!r}, which the teacher does not have",
                param="task",
                code="different_vocabularies",
            )


def _check_solutions(task: Task) -> None:
    """A worked solution that asks the tool has to go on with what the tool says."""
    for problem in task.train:
        if problem.demonstration is None or problem.transcript is not None:
            continue
        try:
            task.solution(problem)
        except Disagreement as error:
            raise UserError(
                f"task.demonstration_column: the solution of row {problem.id} asks the tool, and what follows is not "
                "its answer; give such solutions as conversations (task.messages_column)",
                param="task.demonstration_column",
                code="broken_data",
            ) from error
