"""One ``vllm serve`` process on a loopback port."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx

from tests.ports import free_port

# The small CPU machine that this may run on beside other work takes minutes for its imports.
_PATIENCE_S = 1200.0
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
# What a writer of rollouts needs: adapters loaded and whole weights replaced while it runs. No teacher has it: with
# --enable-lora the CPU server dies of prompt_logprobs.
_WRITER = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_SERVER_DEV_MODE": "1"}


class VLLMServer:
    """Serves ``model`` under the name 'tiny', in float32; started and stopped as often as wanted."""

    def __init__(self, environment: Path, model: Path, log: Path, *, writes: bool) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [str(environment / "bin" / "vllm"), "serve", str(model), "--served-model-name", "tiny"]
        self._command += ["--dtype", "float32", "--max-model-len", "128", "--host", "127.0.0.1"]
        self._command += ["--port", str(self.port), "--enforce-eager"]
        self._command += ["--enable-lora"] if writes else ["--max-logprobs", "64"]
        self._environment = {**_ENVIRONMENT, **(_WRITER if writes else {})}

    def start(self) -> None:
        """It takes a minute or more until it answers: see ``wait``."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        assert self._process is not None
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            end = self._log.read_text(errors="replace")[-3000:]
            assert self._process.poll() is None, f"vLLM ended with {self._process.returncode}:\n{end}"
            assert time.monotonic() < deadline, f"vLLM has not come up:\n{end}"
            time.sleep(1.0)

    def stop(self) -> None:
        """At once, with everything that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False
