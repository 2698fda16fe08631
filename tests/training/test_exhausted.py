"""Memory and disks that run out, as the libraries really say it."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from opd_core.spec import JobSpec
from opd_core.training.exhausted import resource_error

SPEC = JobSpec.model_validate(
    {
        "name": "a job",
        "student": {"model": "demo/student"},
        "teacher": {"model": "demo/teacher"},
        "task": {"name": "demo/word-problems"},
        "batching": {"micro_tokens": 2048},
        "checkpoints": {"keep_last": 5},
    }
)


def real_allocation_failure() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(10**14)
    return caught.value


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), None]
)
def test_memory(error: Exception | None) -> None:
    said = resource_error(error or real_allocation_failure(), SPEC)
    assert said is not None
    body = said["error"]
    assert (body["code"], body["category"], body["param"]) == ("out_of_memory", "resource", "batching.micro_tokens")
    assert "batching.micro_tokens (now 2048)" in body["message"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_disk(error: Exception) -> None:
    said = resource_error(error, SPEC)
    assert said is not None
    body = said["error"]
    assert (body["code"], body["category"]) == ("disk_full", "resource")
    assert "checkpoints.keep_last (now 5)" in body["message"]


@pytest.mark.parametrize(
    "error", [RuntimeError("boom"), OSError(errno.EACCES, "denied"), SafetensorError("header too large"), KeyError("x")]
)
def test_everything_else_is_a_crash(error: Exception) -> None:
    assert resource_error(error, SPEC) is None


def test_the_process_says_it_on_its_channel_and_still_ends_as_a_crash(tmp_path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(SPEC.model_dump_json())
    program = (
        "import sys; from opd_core.training import main, run\n"
        "def full(*_, **__): raise OSError(28, 'No space left on device')\n"
        f"run.train = full; sys.argv = ['main', '--spec', {str(spec)!r}, '--out', 'x']; sys.exit(main.main())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert '"disk_full"' in ended.stdout.splitlines()[-1]
    assert "Traceback" in ended.stderr
