"""Is a run healthy? The actionability diagnostics A1 to A11, as lights, from nothing but its recorded metrics.

Each check names what it measures, what usually causes trouble and what to try. The limits between the lights are ours:
they come from the ranges that published runs report, and they are a reason to look, not a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["good", "watch", "bad", "unknown"]
_RECENT = 20  # measurements that make up "now"
_FIRST = 5  # and "at first"


@dataclass(frozen=True)
class Run:
    """What is known of a run: series by metric (None where a step has none), method, self-check, named alarms."""

    series: Mapping[str, Sequence[float | None]]
    method: Mapping[str, Any]
    self_check: Mapping[str, Any] | None
    alarms: Sequence[str]
    teacher_accuracy: float | None

    def now(self, key: str) -> float | None:
        """Mean of the newest measurements; None without any."""
        values = self._known(key)[-_RECENT:]
        return sum(values) / len(values) if values else None

    def first(self, key: str) -> float | None:
        """Mean of the first measurements, once there are newer ones."""
        values = self._known(key)
        return sum(values[:_FIRST]) / _FIRST if len(values) > 2 * _FIRST else None

    def _known(self, key: str) -> list[float]:
        return [value for value in self.series.get(key, ()) if value is not None and math.isfinite(value)]


@dataclass(frozen=True)
class Finding:
    """A light and why it is lit: one number and one sentence."""

    status: Status
    value: float | None
    sentence: str


@dataclass(frozen=True)
class Check:
    """One diagnostic. ``keys`` are the metrics it is about, the first one is its value over time."""

    id: str
    title: str
    variable: str
    measures: str
    unit: str
    keys: tuple[str, ...]
    causes: str
    remedies: str
    judge: Callable[[Run], Finding]


def _not_yet(what: str) -> Finding:
    return Finding("unknown", None, f"Nothing measured: {what}.")


def _above(value: float, good: float, watch: float) -> Status:
    return "good" if value >= good else "watch" if value >= watch else "bad"


def _below(value: float, good: float, watch: float) -> Status:
    return "good" if value <= good else "watch" if value <= watch else "bad"


def _informativeness(run: Run) -> Finding:
    if (value := run.now("informativeness")) is None:
        return _not_yet("it takes verified rollouts, right and wrong ones in the same step")
    sentence = f"A right rollout has the higher mean log-ratio in {value:.0%} of pairs; 50 % is chance."
    return Finding(_above(value, 0.6, 0.5), value, sentence)


def _overlap(run: Run) -> Finding:
    if (mass := run.now("overlap_mass")) is None:
        return _not_yet("it takes recorded sequences (telemetry.sequences_per_step)")
    first = run.first("overlap_mass")
    fell = first is not None and mass < first - 0.1
    sentence = f"The teacher gives {mass:.0%} of its mass to tokens that are favourites of both models"
    status = _above(mass, 0.8, 0.5)
    if fell:
        return Finding("watch" if status == "good" else status, mass, f"{sentence}, down from {first:.0%} at first.")
    return Finding(status, mass, f"{sentence}.")


def _concentration(run: Run) -> Finding:
    if (share := run.now("log_ratio_loudest")) is None:
        return _not_yet("no step yet")
    low = run.now("log_ratio_p01") or 0.0
    sentence = f"The loudest 1 % of tokens carry {share:.0%} of all |log-ratio|; the 1 % quantile is {low:.1f} nats."
    status = _below(share, 0.35, 0.6)
    return Finding("watch" if status == "good" and low < -20 else status, share, sentence)


def _recovery(run: Run) -> Finding:
    early, late = run.now("recovery_20"), run.now("recovery_80")
    if early is None or late is None:
        return _not_yet("it takes evaluations and telemetry.recovery_problems")
    ceiling = run.teacher_accuracy or 1.0
    sentence = f"The teacher still solves {early:.0%} from 20 % of the student's way and {late:.0%} from 80 %."
    return Finding(_above(late / max(ceiling, 1e-9), 0.5, 0.2), late, sentence)


def _truncation(run: Run) -> Finding:
    support = run.method.get("support") or {}
    limited = support.get("kind", "full") not in ("full", "sampled")
    wanted = int(support.get("k") or 16)
    k = min((8, 16, 32), key=lambda size: abs(size - wanted))
    if (tail := run.now(f"tail_student_{k}")) is None:
        return _not_yet("it takes recorded sequences and telemetry.top_k")
    sentence = f"The student has {tail:.1%} of its mass outside its {k} favourites"
    if not limited:
        return Finding("good", tail, f"{sentence}; this method compares the whole vocabulary or the sampled token.")
    return Finding(_below(tail, 0.05, 0.2), tail, f"{sentence}, which this method's support leaves out.")


def _landing(run: Run) -> Finding:
    reached, plain = run.now("landing_realised_supported"), run.now("landing_plain_supported")
    if reached is None or plain is None:
        return _not_yet("it takes suppressed tokens among the probed states (telemetry.probe_states)")
    squeeze = run.now("squeeze")
    sentence = (
        f"{reached:.0%} of what suppressed tokens lose lands with tokens that the teacher supports; softmax alone "
        f"would give them {plain:.0%}"
    )
    if squeeze is not None:
        sentence += f". Correlation of change and probability: {squeeze:+.2f}"
    empty = run.now("route_empty")
    if empty is not None:
        sentence += f"; {empty:.0%} of routed tokens found no destination"
    status = _above(reached, 0.5, 0.25)
    return Finding("watch" if status == "good" and (squeeze or 0.0) > 0.5 else status, reached, f"{sentence}.")


def _credit(run: Run) -> Finding:
    explained = run.now("critic_explained_variance")
    if explained is None:
        correlation = run.now("credit_correlation")
        if correlation is None:
            return _not_yet("this method gives no credit over time")
        sentence = f"No critic. Correlation of a token's return with its own log-ratio: {correlation:+.2f}."
        return Finding("good", correlation, sentence)
    length = run.now("critic_length_correlation") or 0.0
    sentence = f"The critic explains {explained:.0%} of the returns; it follows the remaining length with {length:+.2f}"
    if explained >= 0.3 and abs(length) > 0.9:
        return Finding("watch", explained, f"{sentence}: mostly a baseline for length.")
    return Finding(_above(explained, 0.3, 0.0), explained, f"{sentence}.")


def _cosine(run: Run) -> Finding:
    value = run.now("force_cosine")
    if value is None and run.self_check:
        value = run.self_check.get("cosine_to_reverse_kl")
    if value is None:
        return _not_yet("it takes probed states (telemetry.probe_states)")
    sentence = f"Cosine of the update's force to the exact reverse-KL gradient at the same states: {value:.2f}."
    return Finding(_above(value, 0.5, 0.1), value, sentence)


def _endings(run: Run) -> Finding:
    length, cut = run.now("length_mean"), run.now("truncated")
    if length is None or cut is None:
        return _not_yet("no step yet")
    entropy, first_entropy, first_length = (
        run.now("entropy_student"),
        run.first("entropy_student"),
        run.first("length_mean"),
    )
    sentence = f"{length:.1f} tokens on average, {cut:.0%} cut off"
    if entropy is not None:
        sentence += f", entropy {entropy:.2f} nats"
    if (repetition := run.now("repetition")) is not None:
        sentence += f", repetition {repetition:.0%}"
    if run.alarms:
        return Finding("bad", length, f"{sentence}. Alarm: {', '.join(run.alarms)}.")
    if cut > 0.5 or (repetition or 0.0) > 0.6:
        return Finding("bad", length, f"{sentence}.")
    thin = entropy is not None and first_entropy is not None and entropy < 0.25 * first_entropy
    shifted = first_length is not None and not 0.6 < length / first_length < 1.4
    if cut > 0.2 or thin or shifted or (repetition or 0.0) > 0.3:
        began = f"; it began with {first_length:.1f} tokens" if shifted else ""
        collapsed = f"; entropy was {first_entropy:.2f} at first" if thin else ""
        return Finding("watch", length, f"{sentence}{began}{collapsed}.")
    return Finding("good", length, f"{sentence}.")


def _engine(run: Run) -> Finding:
    if (gap := run.now("engine_gap")) is None:
        return _not_yet("writing and training use different temperatures or top-p, so the two cannot be compared")
    sentence = f"Writing and training disagree by {gap:.2g} nats per token on average"
    if (cut := run.now("importance_truncated")) is not None:
        sentence += f"; {cut:.1%} of importance weights are cut off"
    status = _below(gap, 0.01, 0.05)
    return Finding("watch" if status == "good" and (cut or 0.0) > 0.1 else status, gap, f"{sentence}.")


def _fixed_point(run: Run) -> Finding:
    if not run.self_check:
        return _not_yet("the self-check runs on the first batch")
    force, shift = run.self_check.get("force_at_teacher"), run.self_check.get("shift")
    alignment = run.self_check.get("alignment") or {}
    if alignment and alignment["0"] < max(alignment.values()):
        return Finding("bad", force, "The teacher's scores fit better one position off: the two read different tokens.")
    if force is None:
        return Finding("good", None, f"By design the optimum is not the teacher ({shift}); the scores are aligned.")
    sentence = f"Largest force where teacher equals student: {force:.1e}; the scores are aligned."
    return Finding("good" if force <= 1e-5 else "bad", force, sentence)


CHECKS = (
    Check(
        "A1",
        "Teacher tells right from wrong",
        "state compatibility",
        "AUROC of a rollout's mean log-ratio against its verdict",
        "share of pairs",
        ("informativeness",),
        "The teacher is no better than the student here, or judges style instead of substance. A good value alone "
        "does not make a teacher usable token by token.",
        "A teacher from the student's own family, the teacher's prompt template, a start by supervised fine-tuning.",
        _informativeness,
    ),
    Check(
        "A2",
        "Both models look at the same tokens",
        "state compatibility, support",
        "overlap of both models' 16 favourites, and the teacher's mass on it",
        "share",
        ("overlap_mass", "overlap"),
        "The student visits states that the teacher does not know, or the two come from different pipelines.",
        "Shorter rollouts or prefixes from data, a warm start on the teacher's texts, a smaller optimizer.lr.",
        _overlap,
    ),
    Check(
        "A3",
        "The signal is spread over tokens",
        "temporal credit, gates",
        "share of all |log-ratio| in the loudest 1 % of tokens",
        "share",
        ("log_ratio_loudest", "log_ratio_negative", "log_ratio_p01", "log_ratio_p99", "signal_p99"),
        "A few tokens that the teacher calls impossible dominate the update.",
        "method.shaping (clip, soft_log), a baseline (credit.baseline 'expected'), a top-k support, an entropy gate.",
        _concentration,
    ),
    Check(
        "A4",
        "Bad beginnings can be repaired",
        "state compatibility",
        "share of held-out problems that the teacher solves after 20 to 80 % of the student's solution",
        "share solved",
        ("recovery_80", "recovery_60", "recovery_40", "recovery_20"),
        "Mistakes early on decide the outcome, so that feedback on late tokens is about lost causes.",
        "A position window or prefix weights in method.gates, shorter rollouts, weights by the teacher's own surprise.",
        _recovery,
    ),
    Check(
        "A5",
        "The support holds the mass",
        "support",
        "the student's mass outside of its favourites",
        "share",
        ("tail_student_16", "tail_student_8", "tail_student_32", "tail_teacher_16"),
        "A top-k support that is too small for this entropy: what is cut off is not compared.",
        "A larger method.support.k, support.remainder 'tail', or the full vocabulary.",
        _truncation,
    ),
    Check(
        "A6",
        "Released mass lands where the teacher wants it",
        "vocabulary routing",
        "share of realised gains, where a token was suppressed, that goes to teacher-supported reachable tokens; it "
        "carries the other states' updates as well",
        "share",
        ("landing_realised_supported", "landing_plain_supported", "landing_realised_own", "squeeze", "favourite_gain"),
        "Pushing one token down feeds whatever the student likes already.",
        "Counterfactual routing (recipe cr-opd), AOPD, or a direct divergence, which names the winners itself.",
        _landing,
    ),
    Check(
        "A7",
        "Credit over time explains something",
        "temporal credit",
        "the critic's explained variance, its correlation with remaining length; return against log-ratio",
        "share",
        ("critic_explained_variance", "critic_length_correlation", "credit_correlation"),
        "The critic learns too slowly, or only that longer rests have larger returns.",
        "More credit.critic.warmup_steps, a larger credit.critic.lr, form 'differential', a smaller credit.gamma.",
        _credit,
    ),
    Check(
        "A8",
        "The update is the one that was asked for",
        "support, routing",
        "cosine of the force to the exact full-vocabulary reverse-KL gradient at the probed states",
        "cosine",
        ("force_cosine",),
        "Near zero the objective follows something else: credit from far away, a support that misses the point. "
        "Forward KL and shifted methods differ by design.",
        "Compare with `opd lab RECIPE`, which computes the same on chains that can be enumerated.",
        _cosine,
    ),
    Check(
        "A9",
        "Length and diversity hold",
        "regularization",
        "mean length, share cut off, entropy, how far long texts compress",
        "tokens",
        ("length_mean", "truncated", "entropy_student", "repetition"),
        "Early stopping: undiscounted negative log-ratios make ending pay. Explosion: repetition earns credit.",
        "A differential critic or immediate credit at the end of a sequence; token-mean aggregation, shaping, a "
        "reference KL.",
        _endings,
    ),
    Check(
        "A10",
        "Writing and training agree",
        "regularization",
        "mean difference of the same token's log-probability when written and when trained on",
        "nats per token",
        ("engine_gap", "importance_truncated"),
        "Another precision, another engine or an older policy wrote the rollouts.",
        "Truncated importance weights (method.importance), fewer updates per rollout, the same precision for both.",
        _engine,
    ),
    Check(
        "A11",
        "Nothing to do where teacher equals student",
        "all",
        "largest logit force on the first batch with the student's own scores as the teacher's",
        "force",
        (),
        "A defect of the objective, or a teacher whose scores are shifted by one token.",
        "Check that both models read the same tokens (tokenizer, template, beginning-of-sequence token).",
        _fixed_point,
    ),
)
