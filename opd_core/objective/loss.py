"""The one definition of the student's loss, and its chunked application through the head.

``plan_loss`` is the definition: a function of (plan, student logits). ``head_loss`` applies it to hidden states in
vocabulary-sized chunks: each chunk's logit gradient is taken at once, inside the forward, and folded into the
gradients of hidden states and head; the backward only scales them. No [N, V] tensor outlives its chunk, and nothing
is computed twice (checkpointing recomputes every chunk's logits).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from opd_core.objective.divergences import divergence
from opd_core.objective.plan import DivergenceTerm, UpdatePlan
from opd_core.objective.support import coarsen
from opd_core.objective.targets import aligned, chunks, log_softmax, scan_budget

# Logits alive at a time: 24 MiB of float32. Products over fewer rows run slower, larger chunks cost memory.
_CPU_BUDGET = 6 * 2**20


def plan_loss(plan: UpdatePlan, student_logits: Tensor) -> Tensor:
    """Per-token loss [N] before normalisation, from student logits [N, V]. Its negative gradient is the force."""
    if plan.shared is not None:
        student_logits = plan.shared.hide(student_logits)
    logp = log_softmax(student_logits, plan.temperature)
    loss = logp.new_zeros(len(plan))
    if plan.components:
        loss = loss - plan.coefficients * logp.gather(1, plan.tokens[:, None])[:, 0]
    if plan.route_ids.shape[1]:
        loss = loss - (plan.route_weights * logp.gather(1, plan.route_ids)).sum(1)
    for term in plan.divergences:
        loss = loss + term.weight * _divergence(term, logp)
    return loss


def _divergence(term: DivergenceTerm, student_logp: Tensor) -> Tensor:
    teacher_logp = term.target.log_probs(term.target_temperature)
    if term.excluded:
        student_logp, teacher_logp = (_without(logp, term.excluded) for logp in (student_logp, teacher_logp))
    if term.tokens is None:
        return divergence(term.kind, student_logp, teacher_logp, term.parameter)
    student_logp, teacher_logp = (coarsen(logp, term.tokens, term.remainder) for logp in (student_logp, teacher_logp))
    generalised = term.remainder == "generalised"
    return divergence(term.kind, student_logp, teacher_logp, term.parameter, generalised=generalised)


def _without(logp: Tensor, excluded: tuple[int, ...]) -> Tensor:
    """The distribution over the other tokens."""
    ids = torch.tensor(excluded, device=logp.device)
    return logp.index_fill(-1, ids, -torch.inf).log_softmax(-1)


class Head(Protocol):
    """A language-model head: logits = transform(hidden @ weight^T + bias)."""

    def rows(self) -> tuple[Tensor, Tensor | None]:
        """Weight [V, H] and bias [V] (or None) of the token ids that exist."""
        ...

    def transform(self, raw_logits: Tensor, /) -> Tensor:
        """What the family does to raw logits, element by element: scale, soft-cap."""
        ...


def head_loss(
    plan: UpdatePlan, hidden: Tensor, head: Head, *, chunk_budget: int | None = None
) -> tuple[Tensor, Tensor]:
    """The step's share of the loss on these rows, and the detached per-token loss.

    hidden [N, H] -> (scalar sum(weights x plan_loss) / normalizer with gradients for hidden, weight and bias; [N]).
    ``chunk_budget`` is the number of logits alive at a time, by default what suits the device.
    """
    weight, bias = head.rows()
    if chunk_budget is None:
        chunk_budget = max(_CPU_BUDGET, scan_budget(hidden.device))
    return _HeadLoss.apply(hidden, weight, bias, head, plan, chunk_budget)  # type: ignore[no-untyped-call,no-any-return]


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        plan: UpdatePlan,
        chunk_budget: int,
    ) -> tuple[Tensor, Tensor]:
        # Chunk gradients accumulate in the parameters' own (float32) precision, whatever the compute precision.
        dtype = hidden.dtype
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
        compute_weight = aligned(weight.to(dtype), weight.shape[0])
        vocabulary = weight.shape[0]
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and need_bias else None
        scale = plan.weights / plan.normalizer
        token_loss = plan.weights.new_zeros(len(plan))
        for rows in chunks(len(plan), vocabulary, budget=chunk_budget):
            part = hidden[rows].to(dtype)
            logits = (part @ compute_weight.T)[:, :vocabulary]
            logits = logits if logits.dtype == torch.float64 else logits.float()
            if bias is not None:
                logits = logits + bias
            with torch.enable_grad():
                logits = logits.detach().requires_grad_()
                losses = plan_loss(plan[rows], head.transform(logits))
                (grad_logits,) = torch.autograd.grad((losses * scale[rows]).sum(), logits)
            token_loss[rows] = losses.detach()
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
            padding = len(compute_weight) - vocabulary
            grad_logits = grad_logits.to(dtype)
            if padding:
                grad_logits = torch.nn.functional.pad(grad_logits, (0, padding))
            if grad_hidden is not None:
                grad_hidden[rows] = (grad_logits @ compute_weight).to(hidden.dtype)
            if grad_weight is not None:
                if grad_weight.dtype == dtype and not padding:
                    grad_weight.addmm_(grad_logits.T, part)  # in place: the product is [V, H] for every chunk
                else:
                    grad_weight += (grad_logits.T @ part)[:vocabulary]
        # Not saved_tensors: those could not be scaled in place, and [V, H] once more is what this is here to avoid.
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.mark_non_differentiable(token_loss)
        return (token_loss * scale).sum(), token_loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of this loss were taken before; run the forward again")
        grad_loss = grad_outputs[0]
        gradients, ctx.gradients = ctx.gradients, None
        scaled = tuple(None if grad is None else grad.mul_(grad_loss.to(grad.dtype)) for grad in gradients)
        return (*scaled, None, None, None)


def force(plan: UpdatePlan, student_logits: Tensor) -> Tensor:
    """The force [N, V] that the plan puts on student logits [N, V]: the negative gradient of each row's loss."""
    with torch.enable_grad():
        logits = student_logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(plan_loss(plan, logits).sum(), logits)
    return -gradient
