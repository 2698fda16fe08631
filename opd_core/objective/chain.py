"""Chains small enough to enumerate: every sequence that two tabular models can write, with its exact probability.

A state is the prefix of tokens written so far; each model is a table of logits, one row per state. Token 0 ends a
sequence. The cap cuts a sequence: it is truncated, not ended, and the chain has no state after it, so the value after
the last token is exactly 0 either way. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from opd_core.objective.divergences import forward_kl, reverse_kl

EOS = 0
LARGEST_VOCABULARY = 16
LARGEST_CAP = 4


@dataclass(frozen=True)
class Chain:
    """S states, V tokens; B sequences of at most T tokens. Off the mask, tokens and states are 0."""

    student: Tensor  # [S, V] logits
    teacher: Tensor  # [S, V] logits
    reference: Tensor  # [S, V] logits of the student at the start of the run
    prefixes: tuple[tuple[int, ...], ...]  # S, state 0 is the empty one
    tokens: Tensor  # [B, T]
    states: Tensor  # [B, T] in which each token was written
    mask: Tensor  # [B, T] bool
    truncated: Tensor  # [B] bool: cut by the cap

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.student.shape[1]

    @property
    def cap(self) -> int:
        """T."""
        return self.tokens.shape[1]

    def token_logp(self, table: Tensor) -> Tensor:
        """[B, T] log-probability of each token under a table of logits, 0 off the mask; differentiable."""
        return table.log_softmax(-1)[self.states, self.tokens] * self.mask

    @property
    def probabilities(self) -> Tensor:
        """[B] with which the student writes each sequence; they sum to 1."""
        return self.token_logp(self.student).sum(1).exp()

    @property
    def visits(self) -> Tensor:
        """[S] probability that the student comes to each state."""
        arrived = self.student.new_zeros(len(self.student))
        weights = self.probabilities[:, None].expand_as(self.mask)[self.mask]
        return arrived.index_add(0, self.states[self.mask], weights)

    def at_rest(self, noise: float = 1e-6, seed: int = 0) -> Chain:
        """The same student with itself as its teacher, up to ``noise`` on the logits (as two forward passes differ)."""
        generator = torch.Generator().manual_seed(seed)
        shaken = torch.randn(self.student.shape, generator=generator, dtype=torch.float64)
        return replace(self, teacher=self.student + noise * shaken)


def random_chain(vocabulary: int = 6, cap: int = 4, *, seed: int = 0, scale: float = 1.5, drift: float = 0.3) -> Chain:
    """A student with normal logits of deviation ``scale``; a teacher that far away from it, a reference ``drift`` away.

    Raises ValueError for a chain too large to enumerate.
    """
    generator = torch.Generator().manual_seed(seed)
    chain = enumerate_chain(vocabulary, cap)
    own, away, back = (torch.randn(chain.student.shape, generator=generator, dtype=torch.float64) for _ in range(3))
    student = scale * own
    return replace(chain, student=student, teacher=student + scale * away, reference=student + drift * back)


def enumerate_chain(vocabulary: int, cap: int) -> Chain:
    """All states and sequences, with tables of zeros (uniform models)."""
    _within("vocabulary", vocabulary, 2, LARGEST_VOCABULARY)
    _within("cap", cap, 1, LARGEST_CAP)
    words = range(1, vocabulary)
    prefixes = tuple(prefix for length in range(cap) for prefix in product(words, repeat=length))
    number = {prefix: index for index, prefix in enumerate(prefixes)}
    ended = [(*prefix, EOS) for prefix in prefixes]
    cut = list(product(words, repeat=cap))
    sequences = [*ended, *cut]

    def padded(row: list[int]) -> list[int]:
        return row + [0] * (cap - len(row))

    lengths = torch.tensor([len(sequence) for sequence in sequences])
    table = torch.zeros(len(prefixes), vocabulary, dtype=torch.float64)
    return Chain(
        student=table,
        teacher=table,
        reference=table,
        prefixes=prefixes,
        tokens=torch.tensor([padded(list(sequence)) for sequence in sequences]),
        states=torch.tensor([padded([number[s[:t]] for t in range(len(s))]) for s in sequences]),
        mask=torch.arange(cap)[None, :] < lengths[:, None],
        truncated=torch.tensor([False] * len(ended) + [True] * len(cut)),
    )


def sequence_kl_gradient(chain: Chain) -> tuple[float, Tensor]:
    """KL(student || teacher) of whole sequences (nats), and its gradient [S, V] with respect to the student's table.

    By autograd over the enumerated sum, the sampling distribution included. A truncated sequence counts with the tokens
    that were written.
    """
    table = chain.student.clone().requires_grad_()
    logp = chain.token_logp(table).sum(1)
    value = (logp.exp() * (logp - chain.token_logp(chain.teacher).sum(1))).sum()
    (gradient,) = torch.autograd.grad(value, table)
    return float(value.detach()), gradient


def state_kl_gradients(chain: Chain) -> tuple[Tensor, Tensor]:
    """Gradients [S, V] of the (reverse, forward) KL at the states that the student visits, how often held fixed."""
    table = chain.student.clone().requires_grad_()
    own, theirs = table.log_softmax(-1), chain.teacher.log_softmax(-1)
    reverse, forward = (
        torch.autograd.grad((chain.visits * kl(own, theirs)).sum(), table, retain_graph=True)[0]
        for kl in (reverse_kl, forward_kl)
    )
    return reverse, forward


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, so that every sequence can be listed (got {value})")
