"""Questions to a run: another method, a prompt of one's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from api import schemas as s
from api.client.transport import Transport


class Questions(Transport):
    """Ask, and wait for the answer."""

    def replan(
        self,
        id: str,
        step: int,
        *,
        recipe: str | None = None,
        method: Mapping[str, Any] | None = None,
        sequences: Iterable[int] | None = None,
    ) -> s.Question:
        """Ask what a recorded step would have been under another method. ``answer`` waits for the result."""
        body = {
            "recipe": recipe,
            "method": dict(method or {}),
            "sequences": None if sequences is None else list(sequences),
        }
        return self._as(s.Question, self._request("POST", f"/v1/jobs/{id}/steps/{step}/replan", json=body))

    def probe(
        self,
        id: str,
        prompt: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
        checkpoint: str | None = None,
    ) -> s.Question:
        """Ask what the student does with a prompt. ``answer`` waits for the result."""
        body = {
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed,
            "checkpoint": checkpoint,
        }
        return self._as(s.Question, self._request("POST", f"/v1/jobs/{id}/probe", json=body))

    def question(self, id: str, question_id: str) -> s.Question:
        """A question as it stands, with its result once it is answered."""
        return self._get(s.Question, f"/v1/jobs/{id}/questions/{question_id}")

    def answer(
        self,
        question: s.Question,
        *,
        timeout_s: float | None = None,
        poll_s: float = 0.5,
        tell: Callable[[s.Question], object] | None = None,
    ) -> s.Question:
        """The question once it is closed; ``tell`` hears of it each time it was looked at. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not question.closed:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"question {question.id} is still {question.status} after {timeout_s:g} s")
            time.sleep(poll_s)
            question = self.question(question.job_id, question.id)
            if tell is not None:
                tell(question)
        return question
