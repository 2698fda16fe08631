"""What has to be equal for a resumed run to end bit for bit like an uninterrupted one."""

from __future__ import annotations

from typing import Any

import torch
import transformers

import opd_core
from opd_core.models import LanguageModel

_UNSAID = {"processes": 1, "sharding": "none", "compiled": False}
"""What checkpoints of earlier versions leave out."""


def fingerprint(
    student: LanguageModel,
    *,
    device: torch.device,
    precision: str,
    micro_tokens: int,
    processes: int,
    sharding: str,
    compiled: bool,
) -> dict[str, Any]:
    """Everything known to change the last bit of a result. Stored in each checkpoint and compared on resume."""
    return {
        "opd": opd_core.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "attention": student.model.config._attn_implementation,
        "precision": precision,
        "micro_tokens": micro_tokens,
        "processes": processes,
        "sharding": sharding,
        "compiled": compiled,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Readable differences, 'threads 2 -> 1'."""
    before = _UNSAID | before
    return [f"{key} {before.get(key)} -> {now.get(key)}" for key in now if before.get(key) != now.get(key)]
