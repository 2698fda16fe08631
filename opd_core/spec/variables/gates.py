"""Which tokens and trajectories speak, and how loudly. Gates multiply; each reports the budget that it really used."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from opd_core.spec.base import Spec

Model = Literal["student", "teacher"]


class _Gate(Spec):
    control: Literal["none", "random"] = Field(
        "none",
        description="random: the same weights, shuffled over the batch's tokens. The control at the same budget that "
        "every selector has to beat.",
    )


class EntropyGate(_Gate):
    """Keeps tokens by the entropy of one model."""

    kind: Literal["entropy"] = "entropy"
    of: Model = "teacher"
    keep: Literal["above", "below"] = "above"
    threshold: float = Field(0.8, ge=0.0, description="In nats.")


class EopdGate(_Gate):
    """EOPD (arXiv 2603.07079): adds forward KL on the teacher's favourites where the teacher is uncertain."""

    kind: Literal["eopd"] = "eopd"
    threshold: float = Field(0.8, ge=0.0, description="Teacher entropy above which it is added, in nats.")
    weight: float = Field(1.0, gt=0.0, le=100.0)
    k: int = Field(16, ge=1, le=1024, description="With a tail bucket for the rest.")


class TipGate(_Gate):
    """TIP (arXiv 2604.14084): keeps the share of tokens with the largest s = h + d - h d.

    h and d are student entropy and KL, scaled to [0, 1] over the batch.
    """

    kind: Literal["tip"] = "tip"
    share: float = Field(0.5, gt=0.0, le=1.0)


class TaOpdGate(_Gate):
    """TA-OPD (arXiv 2605.26844): keeps the share of tokens where disagreement x compatibility is largest.

    Disagreement is the KL, compatibility the teacher's mass on the student's k favourites, both scaled between their
    5 % and 95 % quantiles.
    """

    kind: Literal["ta_opd"] = "ta_opd"
    share: float = Field(0.05, gt=0.0, le=1.0)
    k: int = Field(16, ge=1, le=1024)


class SelectKdGate(_Gate):
    """SelecTKD (arXiv 2510.24021): full weight where the student's favourite is among the teacher's top k."""

    kind: Literal["selectkd"] = "selectkd"
    k: int = Field(5, ge=1, le=1024)
    otherwise: float = Field(0.01, ge=0.0, le=1.0)


class OverlapGate(_Gate):
    """Keeps tokens where both models' k favourites overlap by at least the threshold."""

    kind: Literal["overlap"] = "overlap"
    k: int = Field(16, ge=1, le=1024)
    threshold: float = Field(0.7, ge=0.0, le=1.0)


class WindowGate(_Gate):
    """Keeps completion tokens start, ..., stop - 1, counted from the beginning or from the end of the completion."""

    kind: Literal["window"] = "window"
    start: int = Field(0, ge=0)
    stop: int | None = Field(None, ge=1, description="null = to the other end.")
    counted_from: Literal["beginning", "end"] = "beginning"

    @model_validator(mode="after")
    def _not_empty(self) -> WindowGate:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop {self.stop} must be above start {self.start}")
        return self


class PrefixWeightGate(_Gate):
    """IW-OPD (arXiv 2606.22600): 1 + gamma (1 - share of the sequence's |advantage| that lies before the token)."""

    kind: Literal["prefix_weight"] = "prefix_weight"
    gamma: float = Field(0.5, ge=0.0, le=10.0)


class PruneGate(_Gate):
    """Prune-OPD (arXiv 2605.07804): weight 1 - decay x the number of states so far with too little overlap, >= 0."""

    kind: Literal["prune"] = "prune"
    k: int = Field(16, ge=1, le=1024)
    threshold: float = Field(0.7, ge=0.0, le=1.0)
    decay: float = Field(0.01, gt=0.0, le=1.0)


class FireGate(_Gate):
    """FiRe-OPD (arXiv 2606.02684): drops the trajectories that the teacher likes least and weighs tokens.

    Token weight (1 + alpha c_T) (1 + beta c_S), c_T = 1 - H_T / max, c_S = H_S / max, divided by its batch mean.
    """

    kind: Literal["fire"] = "fire"
    drop: float = Field(0.2, ge=0.0, lt=1.0, description="Share of trajectories, by mean teacher log-probability.")
    alpha: float = Field(1.0, ge=0.0, le=10.0)
    beta: float = Field(1.0, ge=0.0, le=10.0)


class ScopeGate(_Gate):
    """SCOPE (arXiv 2604.10688): wrong answers are distilled, right ones are imitated.

    Within a prompt's group, softmax weights over the wrong (by teacher perplexity^(-1/tau)) and over the right (by
    student perplexity^(1/tau)), times the number of each. Needs rewards and several samples per prompt.
    """

    kind: Literal["scope"] = "scope"
    tau: float = Field(1.0, gt=0.0, le=100.0)
    imitation: float = Field(1.0, ge=0.0, le=100.0, description="Weight of log pi on right answers.")


class AgreementGate(_Gate):
    """RG-OPD (arXiv 2607.04037): keeps a trajectory where teacher and verifier agree.

    Better than its group and liked more by the teacher than by the student (by more than delta nats per token), or not
    better and liked less. Needs rewards and several samples per prompt.
    """

    kind: Literal["agreement"] = "agreement"
    delta: float = Field(0.0, ge=0.0)


class SequenceGate(_Gate):
    """One weight per trajectory: softmax over the batch of its mean teacher log-probability / tau, mean 1."""

    kind: Literal["sequence"] = "sequence"
    tau: float = Field(1.0, gt=0.0, le=100.0)


class RandomGate(Spec):
    """Keeps a random share of the tokens."""

    kind: Literal["random"] = "random"
    share: float = Field(0.5, gt=0.0, le=1.0)


Gate = Annotated[
    EntropyGate
    | EopdGate
    | TipGate
    | TaOpdGate
    | SelectKdGate
    | OverlapGate
    | WindowGate
    | PrefixWeightGate
    | PruneGate
    | FireGate
    | ScopeGate
    | AgreementGate
    | SequenceGate
    | RandomGate,
    Field(discriminator="kind"),
]
