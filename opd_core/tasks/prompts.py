"""From a row's prompt to text and token ids: plain, or through the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from opd_core.spec import UserError


class Prompts:
    """Renders prompts to the text that the student reads, and that text to ids.

    ``template`` 'chat' uses the chat template with its generation prompt; the template writes BOS itself, so none is
    added. 'plain' tokenises the text as the tokenizer does by default (BOS where it has one). 'auto' is 'chat' where
    there is a chat template, else 'plain'.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Literal["auto", "chat", "plain"],
        system_prompt: str | None,
        *,
        whose: str = "student",
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """``tools`` are the schemas that a chat template may list."""
        has_template = tokenizer.chat_template is not None
        if template == "chat" and not has_template:
            raise UserError(
                f"task.template: 'chat' needs a chat template, which the {whose}'s tokenizer does not have; "
                "use 'plain' or 'auto'",
                param="task.template",
            )
        self.tokenizer = tokenizer
        self.chat = has_template if template == "auto" else template == "chat"
        self.system_prompt = system_prompt
        self.told: dict[str, Any] = {"tools": list(tools)} if tools else {}
        self._whose = whose

    def render(self, prompt: str | Sequence[Mapping[str, Any]]) -> str:
        """The text of one prompt: a string, or (chat only) a list of {role, content} messages. UserError if not."""
        if isinstance(prompt, str):
            if not self.chat:
                return prompt if self.system_prompt is None else f"{self.system_prompt}\n\n{prompt}"
            messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
        else:
            messages = [_message(message) for message in prompt]
            if not self.chat:
                raise UserError(
                    "task.prompt_column: it holds lists of messages, which need a chat template "
                    f"(task.template is 'plain', or the {self._whose}'s tokenizer has none)",
                    param="task.prompt_column",
                )
        try:
            return self.rendered(self.with_system(messages))
        except TemplateError as error:
            raise UserError(
                f"task.prompt_column: the {self._whose}'s chat template refuses a prompt ({error})",
                param="task.prompt_column",
            ) from error

    def with_system(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages behind the job's system prompt, where it has one and they have none."""
        given = [dict(message) for message in messages]
        if self.system_prompt is not None and given[0]["role"] != "system":
            given.insert(0, {"role": "system", "content": self.system_prompt})
        return given

    def rendered(self, messages: Sequence[Mapping[str, Any]], *, opens: bool = True) -> str:
        """Messages through the chat template; ``opens``: up to where the assistant goes on. Raises TemplateError."""
        text = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=opens, **self.told
        )
        assert isinstance(text, str)
        return text

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered prompt."""
        ids = list(self.tokenizer(text, add_special_tokens=not self.chat)["input_ids"])
        # Some tokenizers close every text with EOS; the completion would start after its own end.
        if not self.chat and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids.pop()
        return ids


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise UserError(
            "task.prompt_column: a message needs the texts 'role' and 'content', got the fields "
            + (", ".join(map(str, message)) or "none"),
            param="task.prompt_column",
        )
    return {"role": role, "content": content}
