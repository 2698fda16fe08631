"""Answers like a vLLM or an SGLang server (the shapes that they document), from a local model.

vLLM: /v1/completions, and with ``candidates`` /inference/v1/generate with ``prompt_logprob_token_ids``. SGLang:
/v1/completions without prompt_logprobs, and /generate with ``return_logprob``.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field

import httpx
import numpy as np
import torch

from opd_core.models import LanguageModel
from opd_core.runs.endpoints import Endpoint
from opd_core.servers import Server


@dataclass
class FakeServer:
    """``fail`` is asked before each answer: a response to give instead, an exception to raise, or None."""

    lm: LanguageModel
    fail: object = None
    shift: int = 0  # positions by which its scores stand off
    speaks: str = "vllm"
    candidates: bool = False  # whether it scores given candidates
    candidate_shift: int = 0  # positions by which these stand off
    short: tuple[int, int] = (0, 0)  # rows and columns (ids of a token) of them that it leaves out
    max_logprobs: int = 64
    asked: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        self.paths.append(request.url.path)
        self.headers.append(request.headers)
        if callable(self.fail) and (instead := self.fail()) is not None:
            if isinstance(instead, Exception):
                raise instead
            return instead
        path = request.url.path
        if path == "/v1/completions":
            if "prompt_logprobs" in body and self.speaks == "vllm":
                return httpx.Response(200, json={"choices": [self._score(body)]})
            return httpx.Response(200, json={"choices": [{"text": self._write(body["prompt"], body["max_tokens"])}]})
        if path == "/inference/v1/generate" and self.speaks == "vllm":
            if not self.candidates:
                return httpx.Response(403, json={"error": "start with --enable-scale-out"})
            return self._generate(body)
        if path == "/generate" and self.speaks == "sglang":
            return self._native(body)
        return httpx.Response(404, json={"detail": "Not Found"})

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

    def _generate(self, body: dict) -> httpx.Response:
        ids, wanted = body["token_ids"], body["sampling_params"]
        rows, start = wanted["prompt_logprob_token_ids"], wanted["prompt_logprob_start"]
        if len(rows) != len(ids) - 1 - start or len({*map(len, rows)}) != 1 or len(rows[0]) > self.max_logprobs:
            return httpx.Response(400, json={"error": f"{len(rows)} rows of up to {max(map(len, rows))} ids"})
        logp = self._logp(ids).roll(self.candidate_shift, 0)
        scores = np.array(
            [[float(logp[start + i, v]) if v >= 0 else -np.inf for v in row] for i, row in enumerate(rows)], np.float32
        )
        scores = scores[: len(rows) - self.short[0], : scores.shape[1] - self.short[1]]
        file = io.BytesIO()
        np.save(file, scores)
        told = base64.b64encode(file.getvalue()).decode()
        return httpx.Response(200, json={"choices": [{"index": 0, "token_ids": [1]}], "prompt_token_id_logprobs": told})

    def _native(self, body: dict) -> httpx.Response:
        ids, start = body["input_ids"], body["logprob_start_len"]
        assert body["return_logprob"]
        logp = self._logp(ids)

        def listed(row: torch.Tensor, wanted: list[int]) -> list:
            return [[float(row[i]), i, None] for i in wanted]

        own = self._logp(ids).roll(self.shift, 0)
        k = body.get("top_logprobs_num", 0)
        meta: dict = {
            "prompt_tokens": len(ids),
            "input_token_logprobs": [
                [None if at == start else float(own[at - 1, ids[at]]), ids[at], None] for at in range(start, len(ids))
            ],
            "output_token_logprobs": [[float(logp[-1].max()), int(logp[-1].argmax()), None]],
        }
        if k:
            tops = [listed(own[at - 1], own[at - 1].topk(k).indices.tolist()) for at in range(start + 1, len(ids))]
            meta["input_top_logprobs"] = [None, *tops]
            meta["output_top_logprobs"] = [listed(logp[-1], logp[-1].topk(k).indices.tolist())]
        if "token_ids_logprob" in body and self.candidates:
            assert 1 <= len(body["token_ids_logprob"]) <= self.lm.vocab_size
            stands = logp.roll(self.candidate_shift, 0)
            wanted = body["token_ids_logprob"][: len(body["token_ids_logprob"]) - self.short[1]]
            given = [listed(stands[at - 1], wanted) for at in range(start + 1, len(ids) - self.short[0])]
            meta["input_token_ids_logprobs"] = [None, *given]
        return httpx.Response(200, json={"text": "x", "output_ids": [1], "meta_info": meta})

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
