"""Signal shaping: bound the log-ratio before it becomes credit. One token at -50 nats poisons every return before it.

clip: r in [-c, c]. soft_log: sign(r) log(1 + |r|) (arXiv 2607.13399). tanh: c tanh(r / c). All keep the sign of r and
vanish with it, so the fixed point stays at student = teacher; all change what is optimised elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.spec import Shaping


def shape(log_ratio: Tensor, shaping: Shaping) -> Tensor:
    """Shaped log-ratios, same shape."""
    match shaping.kind:
        case "none":
            return log_ratio
        case "clip":
            return log_ratio.clamp(-shaping.limit, shaping.limit)
        case "soft_log":
            return log_ratio.sign() * torch.log1p(log_ratio.abs())
        case "tanh":
            return shaping.limit * torch.tanh(log_ratio / shaping.limit)
