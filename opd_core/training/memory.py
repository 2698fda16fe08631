"""How much memory training holds: what the operating system and the accelerator say, nothing of it touches a weight."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_GIB = 2**30
_STATM = Path("/proc/self/statm")


def memory(device: torch.device) -> dict[str, float]:
    """Metrics in GiB: ``memory_gib``, resident in this process now (on Linux; elsewhere it is not known), and on a CUDA
    device ``gpu_memory_gib``, the most that tensors held since the last call.
    """
    found = {}
    if _STATM.exists():
        resident_pages = int(_STATM.read_text(encoding="ascii").split()[1])
        found["memory_gib"] = resident_pages * os.sysconf("SC_PAGE_SIZE") / _GIB
    if device.type == "cuda":
        found["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / _GIB
        torch.cuda.reset_peak_memory_stats(device)
    return found
