"""vLLM: ``prompt_logprobs`` of its completions, and ``prompt_logprob_token_ids`` of /inference/v1/generate.

The latter (https://docs.vllm.ai/en/stable/training/prompt_token_id_logprobs/) takes a matrix of candidate ids, padded
with -1, whose row i is about token ``prompt_logprob_start + i + 1``, with no more columns than --max-logprobs, and
answers float32 log-probabilities of that shape as a base64-encoded .npy. The completions ignore that field in silence,
so whether a server knows it is asked at the other address, and told by the answer alone.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy

from opd_core.servers import Server
from opd_core.teachers.dialect import Given, Read

_GENERATE = "/inference/v1/generate"
_PADDING = -1
_NO_LOGP = 1e-3  # above it no number is a log-probability, whatever rounding did


class VLLM:
    """See Dialect."""

    name = "vLLM"
    needs = "a vLLM that has it, on a GPU, with --enable-scale-out and VLLM_USE_V2_MODEL_RUNNER=1"

    def __init__(self, server: Server) -> None:
        self._server = server

    def answers(self, ids: Sequence[int]) -> bool:
        """Whether the server knows ``prompt_logprobs``."""
        choice = self._server.complete(prompt=list(ids), max_tokens=1, prompt_logprobs=1)
        return isinstance(choice.get("prompt_logprobs"), list)

    def read(self, ids: Sequence[int], top_k: int) -> Read:
        """See Dialect."""
        choice = self._server.complete(
            prompt=list(ids), max_tokens=1, prompt_logprobs=top_k, logprobs=top_k, return_tokens_as_token_ids=True
        )
        listed = choice.get("prompt_logprobs")
        if not isinstance(listed, list) or len(listed) != len(ids):
            raise self._server.unsuitable("it gives no log-probabilities of a prompt's tokens (prompt_logprobs)")
        return Read([_by_id(entry) for entry in listed], _first_written(choice))

    def score(self, ids: Sequence[int], start: int, candidates: Sequence[Sequence[int]]) -> Given:
        """See Dialect. A request holds as many candidates of each token as the operator says (top_k)."""
        found: list[dict[int, float]] = [{} for _ in candidates]
        sequence, most, read = list(ids[: start + len(candidates)]), self._server.endpoint.top_k, 0
        for first in range(0, max(map(len, candidates), default=0), most):
            part = [row[first : first + most] for row in candidates]
            scores = self._matrix(sequence, start, part)
            read += len(sequence)
            for known, asked, values in zip(found, part, scores.tolist(), strict=True):
                known.update(zip(asked, values[: len(asked)], strict=True))
        return Given(found, read)

    def _matrix(self, ids: list[int], start: int, candidates: Sequence[Sequence[int]]) -> np.ndarray:
        width = max(map(len, candidates))
        padded = [[*row, *[_PADDING] * (width - len(row))] for row in candidates]
        body = {
            "model": self._server.endpoint.model,
            "token_ids": ids,
            "sampling_params": {
                "max_tokens": 1,
                "temperature": 0.0,
                "prompt_logprob_token_ids": padded,
                "prompt_logprob_start": start - 1,
            },
        }
        told = self._server.post(_GENERATE, body).get("prompt_token_id_logprobs")
        if not isinstance(told, str):
            raise self._server.unsuitable(f"{_GENERATE} answers without prompt_token_id_logprobs")
        try:
            scores = npy.read_array(io.BytesIO(base64.b64decode(told, validate=True)), allow_pickle=False)
        except (binascii.Error, ValueError, EOFError) as error:
            raise self._server.unsuitable("its prompt_token_id_logprobs are no base64-encoded .npy") from error
        asked = np.array(padded) != _PADDING
        if scores.shape != asked.shape or scores.dtype.kind != "f":
            raise self._server.unsuitable(
                f"it was asked for {' x '.join(map(str, asked.shape))} candidates (tokens x each) and answers "
                f"{' x '.join(map(str, scores.shape))} of {scores.dtype} (prompt_token_id_logprobs)"
            )
        if np.isnan(scores[asked]).any() or (scores[asked] > _NO_LOGP).any():
            raise self._server.unsuitable(
                "its prompt_token_id_logprobs are no log-probabilities (logits? see --logprobs-mode)"
            )
        return scores


def _by_id(entry: Mapping[str, Any] | None) -> dict[int, float]:
    """One position of ``prompt_logprobs``: {'17': {'logprob': -0.3, ...}, ...}; null for the first token."""
    return {int(i): float(said["logprob"]) for i, said in (entry or {}).items()}


def _first_written(choice: Mapping[str, Any]) -> dict[int, float]:
    """The favourites for the first written token: 'token_id:17' -> log-probability."""
    told = (choice.get("logprobs") or {}).get("top_logprobs") or [{}]
    found = {}
    for token, logprob in (told[0] or {}).items():
        name = str(token).removeprefix("token_id:")
        if name.isdigit() and math.isfinite(float(logprob)):
            found[int(name)] = float(logprob)
    return found
