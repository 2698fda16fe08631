"""Answers like a vLLM server that writes rollouts (the shapes of 0.32) with the weights that it is given."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import torch

from opd_core.models import LanguageModel, load_model, restore_weights
from opd_core.models.lora import add_lora
from opd_core.rollout import completion_hidden, write
from opd_core.runs.endpoints import Endpoint
from opd_core.servers import Server
from opd_core.spec import JobSpec


@dataclass
class FakeVLLM:
    """``fail`` is asked before each answer: a response to give instead, an exception to raise, or None."""

    spec: JobSpec
    fail: object = None
    loads_adapters: bool = True
    dev_mode: bool = True
    deaf: bool = False  # takes weights, and goes on with those that it had
    processed: bool = True  # whether its log-probabilities are those that it samples with
    asked: list[tuple[str, dict]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """What it was given is forgotten."""
        self.base = load_model(self.spec.student, device="cpu", trainable=False, role="student")
        self.adapters: dict[str, LanguageModel] = {}
        self.version = "default"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content or b"{}")
        self.asked.append((path, body))
        if callable(self.fail) and (instead := self.fail()) is not None:
            if isinstance(instead, Exception):
                raise instead
            return instead
        answers = {"/v1/models": self._models, "/v1/completions": self._complete}
        if self.loads_adapters:
            answers |= {"/v1/load_lora_adapter": self._load, "/v1/unload_lora_adapter": self._unload}
        if self.dev_mode:
            answers |= {
                "/pause": lambda _: httpx.Response(200, json={"status": "paused"}),
                "/resume": lambda _: httpx.Response(200, json={"status": "resumed"}),
                "/reset_prefix_cache": lambda _: httpx.Response(200, json={"success": True}),
                "/collective_rpc": self._reload,
                "/update_weight_version": self._tag,
                "/weight_info": lambda _: httpx.Response(200, json={"weight_version": self.version}),
            }
        answer = answers.get(path)
        return httpx.Response(404, json={"detail": "Not Found"}) if answer is None else answer(body)

    def _models(self, body: dict) -> httpx.Response:
        return httpx.Response(200, json={"data": [{"id": name} for name in ("tiny", *self.adapters)]})

    def _load(self, body: dict) -> httpx.Response:
        lm = load_model(self.spec.student, device="cpu", trainable=False, role="student")
        if not self.deaf:
            add_lora(lm, self.spec.student.lora, seed=1)
            restore_weights(lm, Path(body["lora_path"]))
        self.adapters[body["lora_name"]] = lm
        return httpx.Response(200, text=f"Success: LoRA adapter '{body['lora_name']}' added successfully.")

    def _unload(self, body: dict) -> httpx.Response:
        if self.adapters.pop(body["lora_name"], None) is None:
            return httpx.Response(404, json={"error": {"message": "cannot be found", "type": "NotFoundError"}})
        return httpx.Response(200, text="Success")

    def _reload(self, body: dict) -> httpx.Response:
        assert body["method"] == "reload_weights"
        if not self.deaf:
            restore_weights(self.base, Path(body["kwargs"]["weights_path"]))
        return httpx.Response(200, json={"results": [None]})

    def _tag(self, body: dict) -> httpx.Response:
        self.version = body["new_version"]
        return httpx.Response(200, json={"success": True, "new_version": self.version})

    def _complete(self, body: dict) -> httpx.Response:
        lm = {"tiny": self.base, **self.adapters}.get(body["model"])
        if lm is None:
            return httpx.Response(
                404, json={"error": {"message": "The model does not exist.", "type": "NotFoundError"}}
            )
        if body["temperature"] == 0.0:  # somebody wants it to solve a problem
            noise = None
        else:
            noise = torch.rand((1, body["max_tokens"]), generator=torch.Generator().manual_seed(body["seed"] % 2**63))
        rows = write(
            lm,
            [body["prompt"]],
            max_new_tokens=body["max_tokens"],
            noise=noise,
            temperature=body["temperature"] or 1.0,
            top_p=body["top_p"],
        )
        logp = rows.behaviour_logp[0]
        if not self.processed:
            every = lm.head(completion_hidden(lm.trunk, rows)).detach().log_softmax(-1)
            logp = every.gather(1, rows.tokens[0][:, None])[:, 0]
        choice = {
            "text": "x",
            "finish_reason": "length" if bool(rows.truncated[0]) else "stop",
            "token_ids": rows.tokens[0].tolist(),
            "logprobs": {"token_logprobs": logp.tolist()},
        }
        return httpx.Response(200, json={"choices": [choice]})

    def server(self, handover: Path, **settings) -> Server:
        wanted = {"url": "http://writer.example:8000", "model": "tiny", "handover": str(handover), "patience_s": 1.0}
        endpoint = Endpoint.model_validate({**wanted, "concurrency": 1, "tolerance": 1e-3, **settings})
        return Server("fast-writer", endpoint, transport=httpx.MockTransport(self), role="rollout")
