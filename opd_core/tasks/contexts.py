"""What a teacher reads that the student does not: the prompt inside a text with an answer or a worked solution."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from opd_core.spec import UserError
from opd_core.tasks.prompts import Prompts
from opd_core.tasks.task import Problem, Task

_PLACE = re.compile(r"\{(prompt|answer|demonstration|solution)\}")


def read(prompts: Prompts, problem: Problem, context: str, solution: str | None) -> list[int]:
    """Ids of the prompt inside ``context``, rendered like any prompt. ``solution`` is a right rollout of it, if any.

    Where the context asks for something that this problem does not have, the bare prompt is read: a teacher without
    the privilege has nothing to tell about it. Of a list of messages the last one is set into the context.
    """
    values = {"answer": problem.answer, "demonstration": problem.demonstration, "solution": solution}
    asked = set(_PLACE.findall(context)) - {"prompt"}
    if any(values[name] is None for name in asked):
        return prompts.encode(problem.prompt)
    raw = problem.prompt if problem.raw is None else problem.raw
    return prompts.encode(prompts.render(_inside(context, raw, values)))


def _inside(context: str, raw: Any, values: Mapping[str, str | None]) -> str | Sequence[Mapping[str, Any]]:
    if isinstance(raw, str):
        return _fill(context, {**values, "prompt": raw})
    *before, last = raw
    return [*before, {**last, "content": _fill(context, {**values, "prompt": last["content"]})}]


def _fill(context: str, values: Mapping[str, str | None]) -> str:
    """In one pass: what is filled in is never looked at for places again."""
    return _PLACE.sub(lambda place: values[place[1]] or "", context)


def imitate(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A worked solution as the completion of a prompt, ids with the end of sequence."""
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert isinstance(tokenizer.eos_token_id, int)
    return ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]


def ways(prompts: Prompts) -> dict[str, Callable[..., list[int]]]:
    """``encode``, ``read`` and ``imitate`` of a task (task.py) whose prompts are rendered by ``prompts``."""
    return {
        "encode": lambda problem: prompts.encode(problem.prompt),
        "read": lambda problem, context, solution: read(prompts, problem, context, solution),
        "imitate": lambda text: imitate(prompts.tokenizer, text),
    }


def check_context(task: Task, context: str, tokenizer: PreTrainedTokenizerBase, *, param: str, vocab_size: int) -> None:
    """Raise UserError when a context cannot be read; asked on one problem as if it had everything."""
    problem = task.train[0]
    text = problem.demonstration or problem.answer or ""
    whole = replace(problem, answer=problem.answer or text, demonstration=text)
    ids, bare = task.read(whole, context, text), task.encode(problem)
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids and unknown not in bare:
        raise UserError(
            f"{param}: the tokenizer does not know some of its words; write it in the words of the prompts",
            param=param,
            code="unknown_words",
        )
    if (beyond := max(ids)) >= vocab_size:
        token = tokenizer.convert_ids_to_tokens(beyond)
        raise UserError(f"{param}: it uses the token {token!r}, which student and teacher do not share", param=param)
