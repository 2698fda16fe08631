"""A tool for models with a chat template: asked in a turn of the assistant, answered by a message of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from opd_core.spec import Tool, UserError
from opd_core.tasks import calculator
from opd_core.tasks.environment import Environment
from opd_core.tasks.prompts import Prompts

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_TURN = "(a turn)"
NAME = "calculator"
SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Works out an arithmetic expression of numbers, + - * / and brackets.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "For example 12 * (3 + 4)."}},
            "required": ["expression"],
        },
    },
}
"""What the chat template is told of it, for those that list tools in the prompt."""


def environment(tool: Tool, prompts: Prompts, eos_ids: Sequence[int]) -> Environment:
    """Answers a turn that holds a call, after the id that ends it. UserError where the template cannot say it."""
    if not prompts.chat:
        raise _unfit(
            "needs a chat template, which says how a tool is heard (task.template is 'plain', or there is none)"
        )
    tokenizer = prompts.tokenizer
    ends = {end: tokenizer.decode([end]) for end in eos_ids}

    def answer(stretch: Sequence[int]) -> list[int] | None:
        found = result(tokenizer.decode(list(stretch[:-1])))
        return None if found is None else _heard(prompts, found, ends[stretch[-1]])

    # Asked once now, so that a template without a place for it is refused before anything is trained. A character of a
    # result is no more than a byte, and a byte no more than a token.
    longest = max(len(_heard(prompts, calculator.ERROR, end)) for end in ends.values()) + calculator.LONGEST
    return Environment(frozenset(eos_ids), answer, tool.turns, longest)


def result(turn: str) -> str | None:
    """What the tool says to the first call in a turn; None where there is no call."""
    call = _CALL.search(turn)
    if call is None:
        return None
    try:
        asked = json.loads(call[1])
        expression = asked["arguments"]["expression"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return calculator.ERROR
    if asked.get("name") != NAME or not isinstance(expression, str):
        return calculator.ERROR
    return calculator.worked_out(expression)


def _heard(prompts: Prompts, content: str, end: str) -> list[int]:
    """Ids between the end of the assistant's turn and the beginning of its next, as the template writes them."""
    messages = [
        {"role": "user", "content": _TURN},
        {"role": "assistant", "content": _TURN},
        {"role": "tool", "name": NAME, "content": content},
    ]
    try:
        text = prompts.rendered(messages)
    except TemplateError as error:
        raise _unfit(f"the chat template refuses a tool message ({error})") from error
    rest = text.rpartition(_TURN)[2]
    if not rest.startswith(end):
        raise _unfit(f"the chat template ends a turn with {rest[:20]!r}, and the student with {end!r}")
    if content not in rest:
        raise _unfit("the chat template leaves out what a tool says")
    return list(prompts.tokenizer(rest.removeprefix(end), add_special_tokens=False)["input_ids"])


def _unfit(reason: str) -> UserError:
    return UserError(f"task.tool: {reason}", param="task.tool", code="unsuitable_template")
