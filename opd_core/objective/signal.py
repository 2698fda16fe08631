"""The sampled-token signal whose policy gradient is that of a divergence.

For D_f = E_{y ~ pi}[f(u)], u = p(y) / pi(y), the gradient is -E[w_f(u) grad log pi] with w_f = -f + u f' (OPD+, arXiv
2606.01039); f itself, as a reward, is biased for every divergence but the reverse KL. A constant changes no
expectation, so the signal is w_f(u) - w_f(1): zero where student equals teacher. For the reverse KL it is log u.

    divergence       f                                        signal
    reverse_kl       -log u                                   log u
    forward_kl       u log u                                  u - 1
    jsd              b u log(u/m) - (1-b) log m, m = bu+1-b   (1 - b) log m
    skew_forward_kl  u log(u/m), m = au+1-a                   (1 - a) (u/m - 1)
    skew_reverse_kl  -log m, m = a+(1-a)u                     log m + (1 - a) (1 - u/m)
    alpha            (u^o - ou - 1 + o) / (o (o - 1))         (u^o - 1) / o
    total_variation  |u - 1| / 2                              sign(u - 1) / 2
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.spec.variables.objective import Divergence

# u - 1 of a token that the student almost never writes must not overflow.
_LARGEST_LOG_RATIO = 20.0


def signal(divergence: Divergence, log_ratio: Tensor, parameter: float = 0.5) -> Tensor:
    """The signal of each token, same shape as ``log_ratio`` (log u, nats).

    ``parameter`` is beta of the jsd, alpha of the skew KLs, order of the alpha family.
    """
    log_u = log_ratio.clamp(max=_LARGEST_LOG_RATIO)
    a = parameter
    match divergence:
        case "reverse_kl":
            return log_ratio
        case "forward_kl":
            return log_u.expm1()
        case "jsd":
            return (1.0 - a) * torch.log1p(a * log_u.expm1())
        case "skew_forward_kl":
            return (1.0 - a) * (log_u.exp() / (1.0 + a * log_u.expm1()) - 1.0)
        case "skew_reverse_kl":
            mixture = 1.0 + (1.0 - a) * log_u.expm1()
            return mixture.log() + (1.0 - a) * (1.0 - log_u.exp() / mixture)
        case "alpha":
            return torch.expm1(a * log_u) / a
        case "total_variation":
            return 0.5 * log_ratio.sign()
