"""What holds for every method that the spec accepts, on every ragged batch: random points of the whole space."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import force
from opd_core.objective.plan import PlanState, build_plan
from opd_core.objective.targets import DenseTarget
from opd_core.spec import MethodSpec
from opd_core.spec.variables.objective import Divergence
from opd_core.spec.variables.routing import Weighting
from opd_core.spec.variables.support import Remainder, TopKKind

randomly = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def between(low, high):
    return st.floats(low, high, allow_nan=False)


def one(*kinds, **fields):
    """A mapping with one of the kinds and these fields, each of them there or left at its default."""
    return st.fixed_dictionaries({"kind": st.sampled_from(kinds)}, optional=fields)


k = st.integers(1, 6)
share = between(0.05, 1.0)
TARGETS = st.one_of(
    one("teacher"),
    one("trust_region", anchor=st.sampled_from(["student", "reference"]), weight=between(0.1, 0.9)),
    one("veto", beta=between(0.1, 0.9)),
    one("extrapolated", scale=between(0.5, 2.0)),
)
GATES = st.one_of(
    one(
        "entropy",
        of=st.sampled_from(["student", "teacher"]),
        keep=st.sampled_from(["above", "below"]),
        threshold=between(0.0, 2.0),
    ),
    one("eopd", threshold=between(0.0, 2.0), weight=between(0.1, 2.0), k=k),
    one("tip", share=share, control=st.sampled_from(["none", "random"])),
    one("ta_opd", share=share, k=k),
    one("selectkd", k=k, otherwise=between(0.0, 1.0)),
    one("overlap", k=k, threshold=between(0.0, 1.0)),
    one("window", start=st.integers(0, 2), counted_from=st.sampled_from(["beginning", "end"])),
    one("prefix_weight", gamma=between(0.0, 2.0)),
    one("prune", k=k, threshold=between(0.0, 1.0), decay=between(0.01, 1.0)),
    one("fire", drop=between(0.0, 0.9), alpha=between(0.0, 2.0), beta=between(0.0, 2.0)),
    one("scope", tau=between(0.2, 5.0), imitation=between(0.0, 2.0)),
    one("agreement", delta=between(0.0, 1.0)),
    one("sequence", tau=between(0.2, 5.0)),
    one("random", share=share),
)
REGULARIZERS = st.one_of(
    one("reference_kl", weight=between(0.01, 2.0), direction=st.sampled_from(["reverse", "forward"])),
    one("entropy", weight=between(0.01, 2.0)),
    one("trust_region", weight=between(0.01, 2.0)),
    one("golden", weight=between(0.01, 2.0)),
    one("reward", weight=between(0.01, 2.0), normalise=st.sampled_from(["group_std", "group_mean"])),
    one("reward_sign", epsilon=between(0.1, 0.9)),
)
SUPPORTS = st.one_of(
    one("full"),
    one("sampled", estimator=st.sampled_from(["k2", "k3"])),
    one(*get_args(TopKKind), k=k, mass=between(0.1, 0.99), remainder=st.sampled_from(get_args(Remainder))),
)
CRITICS = st.fixed_dictionaries(
    {},
    optional={
        "form": st.sampled_from(["value", "split", "differential", "per_token"]),
        "end_of_sequence": st.sampled_from(["return", "immediate"]),
    },
)
CREDITS = st.fixed_dictionaries(
    {"estimator": st.sampled_from(["immediate", "return_to_go", "discounted", "normalised", "gae"])},
    optional={
        "gamma": between(0.0, 1.0),
        "lam": between(0.0, 1.0),
        "baseline": st.sampled_from(["none", "expected", "batch", "position", "group"]),
        "critic": CRITICS,
    },
)
# Two scores of one model differ by more than nothing: a margin below that fires like none.
MARGINS = st.one_of(between(-1.0, 0.0), between(1e-3, 1.0))
ROUTINGS = st.one_of(
    one("plain"),
    one(
        "counterfactual",
        trigger=st.sampled_from(["log_ratio", "probability"]),
        threshold=between(0.0, 0.5),
        magnitude=st.sampled_from(["log_ratio", "advantage"]),
        student_top_k=k,
        teacher_top_k=k,
        weighting=st.sampled_from(get_args(Weighting)),
        strength=between(0.0, 1.0),
        fallback=st.sampled_from(["abstain", "plain", "down_weight", "forward_kl"]),
    ),
    one("aopd", k=k, margin=MARGINS, form=st.sampled_from(["tail", "raw"]), weight=between(0.1, 2.0)),
    one("apo", anchor=st.sampled_from(["teacher", "reference"]), k=k),
    one("outlier", trust=between(0.01, 0.9), handling=st.sampled_from(["clip", "mask", "forward_kl"]), k=k),
)
SHAPINGS = one(
    "none", "clip", "soft_log", "tanh", "power", "floor", limit=between(0.1, 5.0), exponent=between(0.5, 4.0)
)
IMPORTANCES = one("truncated", "ppo", "icepop", "none", cap=between(1.0, 8.0))
AGGREGATIONS = st.fixed_dictionaries(
    {},
    optional={
        "per": st.sampled_from(["token", "sequence", "constant"]),
        "denominator": st.sampled_from(["actions", "gate_mass"]),
        "by_origin": st.booleans(),
    },
)


@st.composite
def methods(draw) -> MethodSpec:
    route = draw(st.sampled_from(["direct", "log_ratio"]))
    fields = {
        "objective": {
            "route": route,
            "divergence": draw(st.sampled_from(get_args(Divergence))),
            "beta": draw(between(0.0, 1.0)),
            "alpha": draw(between(0.05, 0.95)),
            "order": draw(between(0.05, 0.95)),
            "temperature": draw(st.sampled_from([1.0, 1.0, 0.7, 2.0])),
            "target": draw(TARGETS),
        },
        "gates": draw(st.lists(GATES, max_size=2)),
        "regularizers": draw(st.lists(REGULARIZERS, max_size=2)),
        "importance": draw(IMPORTANCES),
        "aggregation": draw(AGGREGATIONS),
        "support": draw(SUPPORTS),
    }
    if route == "log_ratio":
        fields["support"] = {"kind": "sampled"}
        fields |= {"credit": draw(CREDITS), "routing": draw(ROUTINGS), "shaping": draw(SHAPINGS)}
        fields["objective"]["divergence"] = draw(st.sampled_from(["reverse_kl", *get_args(Divergence)]))
    fields["support"]["special_tokens"] = draw(st.sampled_from(["keep", "exclude"]))
    try:
        return MethodSpec.model_validate(fields)
    except ValidationError:
        reject()


@st.composite
def sizes(draw):
    """(rows, positions, vocabulary, seed of everything in them)"""
    return draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(2, 9)), draw(st.integers(0, 10_000))


class World:
    """A ragged batch with gaps, everything a method may ask for, and noise wherever nobody may look."""

    def __init__(self, size):
        rows, positions, vocabulary, seed = size
        self.generator = torch.Generator().manual_seed(seed)
        self.vocabulary = vocabulary
        self.student, self.teacher, self.reference = (self.normal(rows, positions, vocabulary) * 2 for _ in range(3))
        self.tokens = self.ids(rows, positions)
        self.mask = torch.rand(rows, positions, generator=self.generator) < 0.7
        self.behaviour = self.student.log_softmax(-1).gather(-1, self.tokens[..., None])[..., 0]
        self.behaviour = self.behaviour + 0.3 * self.normal(rows, positions)
        self.values, self.bootstrap = self.normal(rows, positions), self.normal(rows)
        self.truncated = torch.rand(rows, generator=self.generator) < 0.5
        self.reward = (torch.rand(rows, generator=self.generator) < 0.5).double()
        self.group = torch.arange(rows) // 2
        self.from_data = torch.rand(rows, generator=self.generator) < 0.3

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def ids(self, *shape):
        return torch.randint(self.vocabulary, shape, generator=self.generator)

    def feedback(self, method) -> Feedback:
        return Feedback.from_logits(
            self.student,
            self.teacher,
            self.tokens,
            self.mask,
            values=self.values,
            bootstrap=self.bootstrap,
            truncated=self.truncated,
            context=FeedbackContext(
                behaviour_logp=self.behaviour,
                temperature=method.objective.temperature,
                teacher_temperature=method.objective.teacher_temperature,
                reference=DenseTarget(self.reference[self.mask]),
                reward=self.reward,
                group=self.group,
                from_data=self.from_data,
                eos_ids=(0,),
                special_ids=(1,) if self.vocabulary > 2 else (),
            ),
        )

    def plan(self, method):
        state = PlanState(running={"reward_mean": -0.2}, generator=torch.Generator().manual_seed(3))
        return build_plan(method, self.feedback(method), state)

    @property
    def rows(self):
        return self.student[self.mask]


@randomly
@given(methods(), sizes())
def test_forces_are_finite_and_take_from_some_tokens_what_they_give_to_others(method, size):
    world = World(size)
    plan = world.plan(method)
    pushed = force(plan, world.rows)
    assert torch.isfinite(pushed).all()
    assert torch.isfinite(plan.weights).all()
    assert plan.normalizer > 0
    scale = 1 + float(pushed.abs().max()) if len(pushed) else 1.0
    assert float(pushed.sum(1).abs().sum()) < 1e-9 * scale * max(1, len(pushed))
    for name, value in plan.statistics.items():
        assert value == value, f"{name} is not a number"


@randomly
@given(methods(), sizes())
def test_nothing_off_the_mask_is_ever_looked_at(method, size):
    world, other = World(size), World(size)
    off = ~other.mask
    for name in ("student", "teacher", "reference", "behaviour", "values"):
        part = getattr(other, name)
        noise = 5 * other.normal(*part.shape)
        setattr(other, name, torch.where(off if part.dim() == 2 else off[..., None], noise, part))
    other.tokens = torch.where(off, other.ids(*off.shape), other.tokens)
    assert_same(world.plan(method), other.plan(method))


def assert_same(a, b, path="plan"):
    """Bit by bit, field by field."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif is_dataclass(a):
        for each in fields(a):
            if not each.name.startswith("_"):
                assert_same(getattr(a, each.name), getattr(b, each.name), f"{path}.{each.name}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for name in a:
            assert_same(a[name], b[name], f"{path}.{name}")
    elif isinstance(a, tuple):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{path}[{index}]")
    else:
        assert a == b, path


@randomly
@given(methods(), sizes(), st.integers(0, 10_000))
def test_the_force_of_some_rows_is_those_rows_of_the_force(method, size, seed):
    world = World(size)
    plan = world.plan(method)
    whole, count = force(plan, world.rows), len(plan)
    cut = seed % (count + 1)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:cut]
    for rows in (slice(0, cut), slice(cut, count), chosen):
        torch.testing.assert_close(force(plan[rows], world.rows[rows]), whole[rows], atol=1e-12, rtol=1e-12)


@randomly
@given(methods(), sizes())
def test_a_distillation_without_a_shift_rests_at_the_teacher(method, size):
    method = method.distillation()
    if method.shift is not None:
        reject()
    world = World(size)
    world.teacher = world.student + 1e-6 * world.normal(*world.student.shape)
    world.values, world.bootstrap = torch.zeros_like(world.values), torch.zeros_like(world.bootstrap)
    state = PlanState(running={"reward_mean": 0.0}, generator=torch.Generator().manual_seed(3))
    pushed = force(build_plan(method, world.feedback(method), state), world.rows)
    assert float(pushed.abs().sum()) < 1e-4 * max(1, len(pushed))


def test_the_comparison_of_plans_sees_a_difference():
    world = World((2, 3, 5, 0))
    plan = world.plan(MethodSpec())
    with pytest.raises(AssertionError, match="weights"):
        assert_same(plan, replace(plan, weights=plan.weights * 2))
