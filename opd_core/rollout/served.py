"""The student's rows from a vLLM server: weights over before a step, token ids and their log-probabilities back.

What the server says that it sampled with is the behaviour policy of its rows. That it sampled with the weights that it
was handed is not taken on trust: some of its rows are read by the student here, and both sets of log-probabilities have
to agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from opd_core.models import LanguageModel
from opd_core.rollout.handover import Handover, models
from opd_core.rollout.rollouts import Rollouts, imitated
from opd_core.rollout.sampling import behaviour_log_probs
from opd_core.rollout.states import completion_hidden
from opd_core.servers import Server, Unsuitable

_CHECKED = 8  # rows of a step
_AT_ONCE = 256  # tokens whose logits are held at a time
_FAR = 1.0  # nats: at the edge of a nucleus the one says -inf where the other does not


@dataclass(frozen=True)
class _Row:
    tokens: list[int]
    logp: list[float]


class ServedStudent:
    """Writes for ``student``, with the weights that it has at the time."""

    def __init__(self, server: Server, student: LanguageModel, handover: Handover) -> None:
        self.server, self.handover = server, handover
        self._student = student
        self._given: tuple[int, str] | None = None  # for which step, and the model's name there

    @property
    def sentence(self) -> str:
        """Who writes, and how it comes to the weights."""
        return (
            f"{self.server.endpoint.model} at {self.server.name} writes the student's rows; it is handed "
            f"{self.handover.how} before each step"
        )

    def check(self) -> None:
        """Is it there, with the model that it was registered for? Raises Unsuitable or ServerUnreachable."""
        served = models(self.server)
        if self.server.endpoint.model not in served:
            raise self.server.unsuitable(
                f"it serves {', '.join(map(repr, served)) or 'nothing'}, and is registered for "
                f"{self.server.endpoint.model!r}"
            )

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        step: int,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        top_p: float,
    ) -> Rollouts:
        """One completion for each prompt (token ids), drawn from its seed, by the weights before update ``step``.

        Raises ServerUnreachable, or Unsuitable where the server answers something else than it was asked, or has not
        taken the weights.
        """
        wanted = {"max_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        rows = self._rows(prompts, step, seeds, wanted)
        if rows is None:  # it was restarted, or somebody else's weights came between: once more from the start
            self._given = None
            rows = self._rows(prompts, step, seeds, wanted)
        if rows is None:
            raise self.server.unsuitable("it loses the weights that it was handed: does another job use it as well?")
        rollouts = imitated(prompts, [row.tokens for row in rows], self._student)
        behaviour_logp = torch.zeros(rollouts.mask.shape)
        for at, row in enumerate(rows):
            behaviour_logp[at, : len(row.logp)] = torch.tensor(row.logp)
        rollouts = replace(rollouts, behaviour_logp=behaviour_logp.to(rollouts.tokens.device))
        self._check_sync(rollouts, temperature, top_p)
        return rollouts

    def end(self) -> None:
        """The run is over."""
        self.handover.end()

    def _rows(
        self, prompts: Sequence[Sequence[int]], step: int, seeds: Sequence[int], wanted: dict[str, Any]
    ) -> list[_Row] | None:
        """None where the server no longer has the weights."""
        if self._given is None or self._given[0] != step:
            self._given = step, self.handover.give(self._student)
        model = self._given[1]
        try:
            with ThreadPoolExecutor(self.server.endpoint.concurrency) as pool:
                rows = list(pool.map(lambda ids, seed: self._row(model, ids, seed, wanted), prompts, seeds))
        except Unsuitable as error:
            if error.status == 404:  # the adapter's name is unknown
                return None
            raise
        return rows if self.handover.holds() else None

    def _row(self, model: str, ids: Sequence[int], seed: int, wanted: dict[str, Any]) -> _Row:
        # All that shapes the distribution is said: what is left out, a server takes from generation_config.json.
        choice = self.server.complete(
            model=model,
            prompt=list(ids),
            seed=seed,
            logprobs=1,
            return_token_ids=True,
            stop_token_ids=list(self._student.eos_ids),
            top_k=0,
            min_p=0.0,
            repetition_penalty=1.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            **wanted,
        )
        tokens, logp = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
        if not isinstance(tokens, list) or not isinstance(logp, list) or not tokens or len(tokens) != len(logp):
            raise self.server.unsuitable(
                "it does not answer the ids and log-probabilities of what it wrote (return_token_ids, logprobs)"
            )
        if unknown := [token for token in tokens if not 0 <= token < self._student.vocab_size]:
            raise self.server.unsuitable(
                f"it wrote token id {unknown[0]}, and the student has {self._student.vocab_size}: it has another "
                "vocabulary"
            )
        if not all(isinstance(value, float | int) and math.isfinite(value) and value <= 1e-3 for value in logp):
            raise self.server.unsuitable("what it says of its tokens is no log-probability (see --logprobs-mode)")
        ended = tokens[-1] in self._student.eos_ids
        if not ended and len(tokens) != wanted["max_tokens"]:
            raise self.server.unsuitable(
                f"it ended a completion after {len(tokens)} of {wanted['max_tokens']} tokens without an end of "
                f"sequence ({choice.get('finish_reason')})"
            )
        return _Row(tokens, [min(float(value), 0.0) for value in logp])

    @torch.no_grad()
    def _check_sync(self, rollouts: Rollouts, temperature: float, top_p: float) -> None:
        """Some rows, spread over the step: do both sides give what was written the same probability?"""
        count = min(_CHECKED, len(rollouts))
        some = rollouts.reorder(torch.arange(count, device=rollouts.tokens.device) * len(rollouts) // count)
        said = some.behaviour_logp[some.mask]
        own = self._own(some, temperature, top_p)
        apart, allowed = _apart(said, own), self.server.endpoint.tolerance
        if apart <= allowed:
            return
        if (temperature != 1.0 or top_p != 1.0) and _apart(said, self._own(some, 1.0, 1.0)) <= allowed:
            raise self.server.unsuitable(
                "it says log-probabilities from before rollout.temperature and rollout.top_p, not those that it "
                "sampled with: start it with --logprobs-mode processed_logprobs, or use 1 and 1"
            )
        raise self.server.unsuitable(
            f"it has not taken the student's weights: the log-probability of what it wrote is {float(said.mean()):.4f} "
            f"a token by its own account and {float(own.clamp(min=-100.0).mean()):.4f} by the trainer's, "
            f"{apart:.2g} nats apart on average, and {allowed:g} is allowed (tolerance of the endpoint)"
            f"{self.handover.doubt}"
        )

    def _own(self, rollouts: Rollouts, temperature: float, top_p: float) -> Tensor:
        """[N] the student's log-probabilities of the written tokens under these settings."""
        tokens = rollouts.tokens[rollouts.mask]
        hidden = completion_hidden(self._student.trunk, rollouts)
        parts = [
            behaviour_log_probs(self._student.head(rows), temperature=temperature, top_p=top_p).gather(1, ids[:, None])
            for rows, ids in zip(hidden.split(_AT_ONCE), tokens.split(_AT_ONCE), strict=True)
        ]
        return torch.cat(parts)[:, 0]


def _apart(said: Tensor, own: Tensor) -> float:
    return float((said - own).abs().clamp(max=_FAR).mean())
