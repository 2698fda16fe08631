"""Answers like a vLLM server (the shapes of its /v1/completions), from a local model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import httpx
import torch

from opd_core.models import LanguageModel
from opd_core.runs.endpoints import Endpoint
from opd_core.teachers.server import Server


@dataclass
class FakeServer:
    """``fail`` is asked before each answer: a response to give instead, an exception to raise, or None."""

    lm: LanguageModel
    fail: object = None
    shift: int = 0  # positions by which its scores stand off
    asked: list[dict] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        self.headers.append(request.headers)
        if callable(self.fail) and (instead := self.fail()) is not None:
            if isinstance(instead, Exception):
                raise instead
            return instead
        assert request.url.path == "/v1/completions"
        if "prompt_logprobs" not in body:
            return httpx.Response(200, json={"choices": [{"text": self._write(body["prompt"], body["max_tokens"])}]})
        return httpx.Response(200, json={"choices": [self._score(body)]})

    def _logp(self, ids: list[int]) -> torch.Tensor:
        tensor = torch.tensor([ids])
        with torch.no_grad():
            return self.lm.head(self.lm.trunk(tensor, torch.ones_like(tensor)).last_hidden_state[0]).log_softmax(-1)

    def _score(self, body: dict) -> dict:
        ids, k = body["prompt"], body["prompt_logprobs"]
        logp = self._logp(ids).roll(self.shift, 0)
        listed: list = [None]
        for position in range(1, len(ids)):
            row = logp[position - 1]
            shown = {*row.topk(k).indices.tolist(), ids[position]}
            listed.append({str(i): {"logprob": float(row[i]), "rank": 1, "decoded_token": "x"} for i in shown})
        top = logp[-1].topk(k).indices.tolist()
        after = {f"token_id:{i}": float(logp[-1][i]) for i in top}
        return {"text": "x", "prompt_logprobs": listed, "logprobs": {"top_logprobs": [after]}}

    def _write(self, ids: list[int], count: int) -> str:
        written: list[int] = []
        while len(written) < count:
            written.append(int(self._logp([*ids, *written])[-1].argmax()))
            if written[-1] in self.lm.eos_ids:
                break
        return self.lm.tokenizer.decode(written, skip_special_tokens=True)

    def server(self, **settings) -> Server:
        endpoint = Endpoint.model_validate({"url": "http://teacher.example:8000", "model": "big", **settings})
        return Server("big", endpoint, transport=httpx.MockTransport(self))
