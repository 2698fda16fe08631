"""How a vLLM server comes to the student's weights: through a folder that both see.

An adapter goes through vLLM's dynamic LoRA loading (``/v1/load_lora_adapter``, where the operator started the server
with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True), whole weights through its reload in place (worker method
``reload_weights`` over ``/collective_rpc``, with VLLM_SERVER_DEV_MODE=1). Both are given under a new name each time:
what the server keeps of earlier prompts is kept by name, and would outlive the weights that it was computed with.
"""

from __future__ import annotations

import secrets
import shutil
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from opd_core.models import LanguageModel, write_adapter
from opd_core.servers import Server, ServerUnreachable, Unsuitable

_NAME = "opd"


class Handover(ABC):
    """Of one run: ``run`` sets its names apart from those of others."""

    how: str  # for people
    doubt: str = ""  # what else may be wrong where the server samples with other weights

    def __init__(self, server: Server, run: str) -> None:
        here = server.endpoint.handover
        assert here is not None  # checked where the endpoint was looked up
        self.server = server
        self._prefix = f"{_NAME}-{run}-"
        self._here, self._there = here / run, (server.endpoint.handover_there or here) / run
        self._series, self._given = secrets.token_hex(4), 0
        self._current: str | None = None

    def give(self, student: LanguageModel) -> str:
        """Hand over the weights as they are now; the name of the model to ask for. Raises as ``Server`` does."""
        if self._current is None:
            shutil.rmtree(self._here, ignore_errors=True)  # of an attempt before this one
            self._tidy()
        self._given += 1
        name = f"{self._prefix}{self._series}-{self._given}"
        folder = self._here / name
        try:
            self._here.mkdir(exist_ok=True)  # the folder above it is the operator's to make
            folder.mkdir()
            self._write(student, folder)
        except OSError as error:
            raise self.server.unsuitable(
                f"weights cannot be written where it takes them from, {self._here} (handover): {error.strerror}"
            ) from error
        asked = self._load(name, self._there / name)
        if self._current is not None:
            self._drop(self._current)
            shutil.rmtree(self._here / self._current, ignore_errors=True)
        self._current = name
        return asked

    def end(self) -> None:
        """Leave nothing behind. A server that is gone has forgotten it anyway."""
        if self._current is not None:
            with suppress(ServerUnreachable, Unsuitable):
                self._drop(self._current)
        shutil.rmtree(self._here, ignore_errors=True)

    def holds(self) -> bool:
        """Whether the server still has what it was given last, as far as it can be asked."""
        return True

    @abstractmethod
    def _tidy(self) -> None:
        """Remove what an earlier attempt left in the server."""

    @abstractmethod
    def _write(self, student: LanguageModel, folder: Path) -> None:
        """Files that the server can read."""

    @abstractmethod
    def _load(self, name: str, folder: Path) -> str:
        """Let the server read ``folder`` (as it calls it); the name to ask for."""

    @abstractmethod
    def _drop(self, name: str) -> None:
        """Let the server forget an earlier version."""


class AdapterHandover(Handover):
    """Each version is an adapter of its own beside the base model: several jobs can share the server."""

    how = "adapters"
    doubt = "; where a job replaced the server's own weights before, start it anew: an adapter lies on them"

    def _tidy(self) -> None:
        for name in models(self.server):
            if name.startswith(self._prefix):
                self._drop(name)

    def _write(self, student: LanguageModel, folder: Path) -> None:
        write_adapter(student, folder)

    def _load(self, name: str, folder: Path) -> str:
        try:
            self.server.tell("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        except Unsuitable as error:
            if error.status == 404 and "Not Found" in error.reason:
                raise self.server.unsuitable(
                    "it loads no adapters while it runs: start it with --enable-lora and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
                    404,
                ) from error
            raise
        return name

    def _drop(self, name: str) -> None:
        try:
            self.server.tell("/v1/unload_lora_adapter", {"lora_name": name})
        except Unsuitable as error:
            if error.status != 404:  # restarted since: it has forgotten it
                raise


class WholeHandover(Handover):
    """The server's own weights are replaced: it serves this job alone."""

    how = "whole weights"

    def _tidy(self) -> None:
        return

    def _write(self, student: LanguageModel, folder: Path) -> None:
        student.model.save_pretrained(folder)

    def _load(self, name: str, folder: Path) -> str:
        try:
            self.server.tell("/pause?mode=wait", {})
        except Unsuitable as error:
            if error.status == 404:
                raise self.server.unsuitable(
                    "it takes no weights while it runs: start it with VLLM_SERVER_DEV_MODE=1, or train an adapter "
                    "(student.lora)",
                    404,
                ) from error
            raise
        try:
            self.server.tell("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
            # What it keeps of prompts that it read with the weights before.
            if self.server.post("/reset_prefix_cache", {}).get("success") is not True:
                raise self.server.unsuitable("it did not forget what it kept of the weights before (prefix cache)")
            self.server.tell("/update_weight_version", {"new_version": name})
        finally:
            self.server.tell("/resume", {})
        return self.server.endpoint.model

    def _drop(self, name: str) -> None:
        del name  # the next version takes its place

    def holds(self) -> bool:
        """Another job, or a restart, takes its own weights."""
        return self.server.get("/weight_info").get("weight_version") == self._current


def models(server: Server) -> list[str]:
    """The names of what the server serves, adapters included."""
    listed = server.get("/v1/models").get("data")
    if not isinstance(listed, list):
        raise server.unsuitable("/v1/models answers without data")
    return [str(card["id"]) for card in listed if isinstance(card, dict) and "id" in card]
