"""Signal shaping: bound the log-ratio before it becomes credit. One token at -50 nats poisons every return before it.

clip: r in [-c, c]. soft_log: sign(r) log(1 + |r|) (arXiv 2607.13399). tanh: c tanh(r / c). power: p^e - pi^e, in
[-1, 1] (PowerOPD, arXiv 2606.17199). floor: max(r, -c), which is what a teacher gives that never goes below exp(-c) of
the student. All keep the sign of r and vanish with it, so the fixed point stays at student = teacher; all change what
is optimised elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.spec.variables.shaping import Shaping


def shape(signal: Tensor, shaping: Shaping, *, student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """Shaped signal, same shape as ``signal``; the log-probabilities of the same tokens are what ``power`` looks at."""
    match shaping.kind:
        case "none":
            return signal
        case "clip":
            return signal.clamp(-shaping.limit, shaping.limit)
        case "soft_log":
            return signal.sign() * torch.log1p(signal.abs())
        case "tanh":
            return shaping.limit * torch.tanh(signal / shaping.limit)
        case "power":
            return (shaping.exponent * teacher_logp).exp() - (shaping.exponent * student_logp).exp()
        case "floor":
            return signal.clamp(min=-shaping.limit)
