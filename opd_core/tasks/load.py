"""From a task spec to a ``Task``."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import detours, synonyms, word_problems
from opd_core.tasks.dataset import load_dataset_task
from opd_core.tasks.task import Task

BUILT_IN = {
    **{name: (word_problems.WRITING, changes) for name, changes in word_problems.LEVELS.items()},
    synonyms.TASK: (synonyms.WRITING, synonyms.CHANGES),
    detours.TASK: (detours.WRITING, detours.CHANGES),
}
"""Task -> how its problems are worked, and the fewest and the most changes of one."""

LONGER = {
    "demo/word-problems-short": (3, word_problems.MOST_CHANGES),
    synonyms.TASK: synonyms.LONGER,
    detours.TASK: detours.LONGER,
}
"""Task -> the changes of problems longer than any of training, which the models' schooling did hold."""


def load_task(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, vocab_size: int | None = None) -> Task:
    """Load the built-in task or the user's file that ``spec`` names.

    ``vocab_size`` is the number of ids that student and teacher share (``check_vocabularies``): prompts with ids
    beyond it are refused. UserError for whatever is wrong with the spec or the data.
    """
    if spec.ood_examples and spec.name not in LONGER:
        raise UserError(
            f"task.ood_examples: '{spec.name or spec.dataset}' has no longer problems ({', '.join(LONGER)} have)",
            param="task.ood_examples",
            code="no_longer_problems",
        )
    if spec.dataset is not None:
        task = load_dataset_task(spec, tokenizer, seed=seed)
    elif spec.name in BUILT_IN:
        writing, changes = BUILT_IN[spec.name]
        longer = LONGER.get(spec.name, changes)
        task = word_problems.load(spec, tokenizer, seed=seed, changes=changes, longer=longer, writing=writing)
    else:
        raise UserError(
            f"task.name: there is no built-in task '{spec.name}' (there are {', '.join(BUILT_IN)})",
            param="task.name",
            code="unknown_task",
        )
    if vocab_size is not None:
        _check_ids(task, tokenizer, vocab_size)
    return task


def _check_ids(task: Task, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    for problem in (*task.train, *task.eval, *task.ood):
        unknown = [i for i in task.encode(problem) if i >= vocab_size]
        if unknown:
            raise UserError(
                f"task: the prompt of problem {problem.id} uses the token "
                f"{tokenizer.convert_ids_to_tokens(unknown[0])!r}, which the teacher does not have",
                param="task",
                code="different_vocabularies",
            )
