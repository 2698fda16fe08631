"""A conversation of the data as a prompt and a transcript: which tokens are the assistant's, the chat template says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from opd_core.spec import UserError
from opd_core.tasks.environment import Transcript
from opd_core.tasks.prompts import Prompts

_PARAM = "task.messages_column"
_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id")

Messages = Sequence[Mapping[str, Any]]


def messages_of(value: Any, row: int) -> list[dict[str, Any]]:
    """A cell of the column as messages the last of which is the assistant's. UserError for anything else.

    What others say after the assistant's last turn is left out: nobody answers it.
    """
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise _broken(row, f"holds a {type(value).__name__}; a conversation is a list of messages")
    messages = [_message(message, row) for message in value]
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[0] == 0:
        raise _broken(row, "needs an assistant's turn, and a message before the first of them")
    return messages[: turns[-1] + 1]


def opening(messages: Messages) -> list[dict[str, Any]]:
    """The messages before the assistant's first turn: the prompt."""
    first = next(place for place, message in enumerate(messages) if message["role"] == "assistant")
    return [dict(message) for message in messages[:first]]


def transcript(prompts: Prompts, messages: Messages, eos_ids: Sequence[int], row: int) -> Transcript:
    """What follows the prompt, up to the assistant's last token.

    By the template's own {% generation %} marks where it has them, else by rendering it turn by turn. A turn ends with
    its end of sequence: what the template writes behind that is not the student's. UserError where the template does
    not go on from one turn to the next as it began.
    """
    begun = prompts.encode(prompts.render(opening(messages)))
    try:
        ids, own = (_by_marks if _has_marks(prompts) else _by_turns)(prompts, prompts.with_system(messages), row)
    except TemplateError as error:
        raise _broken(row, f"the chat template refuses the conversation ({error})") from error
    _check_prefix(begun, ids, row, "its prompt")
    if any(own[: len(begun)]):
        raise _broken(row, "the chat template marks tokens of the prompt as the assistant's")
    own = _up_to_the_end(ids, own, set(eos_ids))
    if not any(own):
        raise _broken(row, "the chat template marks no token as the assistant's")
    stop = len(own) - own[::-1].index(True)
    return Transcript(ids[len(begun) : stop], own[len(begun) : stop])


def _has_marks(prompts: Prompts) -> bool:
    return "generation %}" in str(prompts.tokenizer.chat_template).replace("-%}", "%}").replace("endgeneration", "")


def _by_marks(prompts: Prompts, messages: Messages, row: int) -> tuple[list[int], list[bool]]:  # noqa: ARG001
    told = prompts.tokenizer.apply_chat_template(
        list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **prompts.told
    )
    return list(told["input_ids"]), [bool(own) for own in told["assistant_masks"]]


def _by_turns(prompts: Prompts, messages: Messages, row: int) -> tuple[list[int], list[bool]]:
    ids = prompts.encode(prompts.rendered(messages, opens=False))
    own = [False] * len(ids)
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = prompts.encode(prompts.rendered(messages[:place]))
        upto = prompts.encode(prompts.rendered(messages[: place + 1], opens=False))
        for part, name in ((before, "what stands before"), (upto, "all up to the end of")):
            _check_prefix(part, ids, row, f"{name} message {place}")
        own[len(before) : len(upto)] = [True] * (len(upto) - len(before))
    return ids, own


def _up_to_the_end(ids: Sequence[int], own: Sequence[bool], ends: set[int]) -> list[bool]:
    """Without what a turn has behind its end of sequence."""
    found, over = [], False
    for token, acted in zip(ids, own, strict=True):
        found.append(acted and not over)
        over = acted and (over or token in ends)
    return found


def _check_prefix(part: Sequence[int], whole: Sequence[int], row: int, what: str) -> None:
    if list(whole[: len(part)]) != list(part):
        raise _broken(
            row,
            f"the chat template writes {what} otherwise when the conversation goes on, so its tokens cannot be told "
            "apart; use a template with {% generation %} marks that keeps earlier turns as they were",
        )


def _message(message: Mapping[str, Any], row: int) -> dict[str, Any]:
    # A file's table has every field in every row, null where it is not given.
    found = {name: _given(message[name]) for name in _FIELDS if message.get(name) is not None}
    if "tool_calls" in found:
        found.setdefault("content", "")
    if not isinstance(found.get("role"), str) or not isinstance(found.get("content"), str):
        raise _broken(
            row, f"a message needs the texts 'role' and 'content', got {', '.join(map(str, message)) or 'none'}"
        )
    return found


def _given(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _given(entry) for key, entry in value.items() if entry is not None}
    return [_given(entry) for entry in value] if isinstance(value, list) else value


def _broken(row: int, reason: str) -> UserError:
    return UserError(f"{_PARAM}: row {row}: {reason}", param=_PARAM, code="broken_data")
