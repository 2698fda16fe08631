"""Memory or disk space that ran out, by name and with what to do: a traceback tells neither."""

from __future__ import annotations

import errno
from typing import Any

import torch
from safetensors import SafetensorError

from opd_core.spec import JobSpec
from opd_core.training import messages

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# The CPU allocator raises a plain RuntimeError.
_CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"


def resource_error(error: BaseException, spec: JobSpec) -> dict[str, Any] | None:
    """The error message of a run that ended so; None when the cause is another one."""
    if _out_of_memory(error):
        return messages.error(
            "out_of_memory",
            f"memory ran out ({_first_line(error)}). In this order: lower batching.micro_tokens (now "
            f"{spec.batching.micro_tokens}), then set batching.gradient_checkpointing: neither changes a result; lower "
            "rollout.prompts_per_step or rollout.max_new_tokens; use resources.precision bfloat16, "
            "teacher.quantization or a smaller teacher",
            param="batching.micro_tokens",
            category="resource",
            retryable=True,
        )
    if _disk_full(error):
        return messages.error(
            "disk_full",
            f"the disk is full ({_first_line(error)}). Remove jobs that are over, or keep less: checkpoints.keep_last "
            f"(now {spec.checkpoints.keep_last}), telemetry.sequences_per_step, telemetry.top_k",
            param="checkpoints.keep_last",
            category="resource",
            retryable=True,
        )
    return None


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)
    )


def _disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_SPACE
    # safetensors hands the number on in its text only.
    return isinstance(error, SafetensorError) and any(f"(os error {number})" in str(error) for number in _NO_SPACE)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
