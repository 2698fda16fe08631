"""How much memory some work takes at its highest, beside what is held before it: ``reset``, the work, ``peak``."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path


class OnCpu:
    """Resident memory of this process, GiB. Needs Linux (/proc)."""

    def reset(self) -> float:
        """Give back what the allocator holds and forget the peak; what is resident now."""
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return self._read("VmRSS")

    def peak(self) -> float:
        """The most since ``reset``."""
        return self._read("VmHWM")

    def _read(self, field: str) -> float:
        match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert match
        return int(match[1]) / 2**20


class OnGpu:
    """Memory that tensors hold on the GPU, GiB."""

    def reset(self) -> float:
        """Forget the peak; what is held now."""
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**30

    def peak(self) -> float:
        """The most since ``reset``."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**30
