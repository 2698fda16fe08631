"""What a trainer computes on, and how: device, threads, determinism, precision."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
import transformers

from opd_core.spec import JobSpec, UserError


def set_up_torch(spec: JobSpec, number: int = 0) -> torch.device:
    """Threads, determinism, device of process ``number`` of the job. Raises UserError for want of GPUs."""
    # Its bars would break up our own progress line, or fill the log.
    transformers.utils.logging.disable_progress_bar()
    if spec.resources.threads != "auto":
        torch.set_num_threads(spec.resources.threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        # Spinning threads beside a busy process cost more than they give; one core stays for everything else.
        torch.set_num_threads(max(1, ((os.cpu_count() or 1) - 1) // spec.resources.processes))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # An indexed gather's backward gave 20 results in 20 runs with two threads.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and spec.resources.processes > 1:
        _take_gpu(spec.resources.processes, number)
    # On CUDA a cumulative sum has no deterministic kernel; bit-exact resume is promised for the CPU.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Nothing here reads what it has not written; filling every new tensor first costs a kernel each.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(spec.seed)
    return device


def _take_gpu(processes: int, number: int) -> None:
    """Each process of a job has a GPU of its own."""
    if torch.cuda.device_count() < processes:
        raise UserError(
            f"resources.processes: {processes} needs as many GPUs, one for each process, and this machine shows "
            f"{torch.cuda.device_count()}",
            param="resources.processes",
            code="too_few_gpus",
        )
    torch.cuda.set_device(number)


def precision(spec: JobSpec, device: torch.device) -> str:
    """What is computed in: float32 or bfloat16."""
    if spec.resources.precision != "auto":
        return spec.resources.precision
    return "bfloat16" if device.type == "cuda" else "float32"


def frozen_dtype(spec: JobSpec, device: torch.device) -> torch.dtype:
    """What frozen models are kept in, and the student writes with."""
    return torch.bfloat16 if precision(spec, device) == "bfloat16" else torch.float32


def autocast(spec: JobSpec, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 in compute only: weights, optimizer and gradients of weights stay float32."""
    if precision(spec, device) == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
