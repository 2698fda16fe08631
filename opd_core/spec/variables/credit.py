"""How the log-ratios of a rollout are credited to its tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from opd_core.spec.base import Spec


class Critic(Spec):
    """The learned value of log-ratio returns: a small head on the student's trunk (estimator gae only)."""

    form: Literal["value", "split", "differential", "per_token"] = Field(
        "differential",
        description="value = V is learned. split = V = -K + gamma U with K = KL(student || teacher) known, only U is "
        "learned. differential = split on rewards r + mean K, so that going on costs nothing on average. "
        "per_token = the mean log-ratio over the remaining tokens is valued instead of their sum.",
    )
    end_of_sequence: Literal["return", "immediate"] = Field(
        "return",
        description="immediate: the token that ends a sequence is credited r + K alone, so that stopping is neither "
        "rewarded nor punished for what it avoids.",
    )
    hidden: int = Field(64, ge=0, le=65_536, description="Width of the head's hidden layer; 0 = linear.")
    lr: float = Field(3e-3, gt=0.0, le=1.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    warmup_steps: int = Field(
        10, ge=0, description="Updates at the start in which the critic only learns, and credit is immediate."
    )
    detach_trunk: bool = Field(True, description="false: the critic's loss also shapes the student's trunk.")
    loss_weight: float = Field(1.0, gt=0.0)
    huber: float = Field(1.0, gt=0.0, description="Residuals beyond this (in target deviations) count linearly.")


class Credit(Spec):
    """How the log-ratios of a rollout are credited to its tokens (log-ratio route only)."""

    estimator: Literal["immediate", "return_to_go", "discounted", "normalised", "gae"] = Field(
        "immediate",
        description="immediate = each token its own log-ratio; return_to_go = the sum from it to the end; "
        "discounted = that sum with gamma per token; normalised = the discounted sum over the sum of the discounts; "
        "gae = generalised advantage estimation with a learned critic (a hypothesis).",
    )
    gamma: float = Field(0.9, ge=0.0, le=1.0, description="discounted, normalised and gae only.")
    lam: float = Field(0.5, ge=0.0, le=1.0, description="gae only: 0 trusts the critic, 1 the sampled return.")
    baseline: Literal["none", "expected", "batch", "position", "group"] = Field(
        "none",
        description="Taken off the return. expected = -KL(student || teacher) at the state; batch, position, group = "
        "the mean over the other sequences of the batch, at the same position, or of the same prompt. gae brings its "
        "own.",
    )
    critic: Critic = Critic()

    @property
    def discount(self) -> float:
        """gamma of the estimator: 0 for immediate credit, 1 for the return-to-go."""
        return {"immediate": 0.0, "return_to_go": 1.0}.get(self.estimator, self.gamma)
