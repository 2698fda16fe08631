"""Validation that teaches: what is refused, with the nearest valid choice; what is accepted, with a warning."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from opd_core.recipes import load, names
from opd_core.spec import MethodSpec, describe

SAMPLED = {"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}}
DIRECT = {"objective": {"route": "direct", "divergence": "reverse_kl"}}
TOP_K = {"kind": "teacher_top_k", "k": 8}


def top_k(divergence, **support):
    return {"objective": {"route": "direct", "divergence": divergence}, "support": {**TOP_K, **support}}


def refused(method) -> str:
    with pytest.raises(ValidationError) as caught:
        MethodSpec.model_validate(method)
    return str(describe(caught.value, prefix="method", data=method))


@pytest.mark.parametrize(
    ("method", "why", "instead"),
    [
        ({**DIRECT, "support": {"kind": "sampled"}}, "the teacher cancels", "'k2' (reverse_kl)"),
        ({**DIRECT, "support": {"kind": "sampled", "estimator": "k3"}}, "not of reverse_kl", "'forward_kl'"),
        ({**SAMPLED, "support": {"kind": "sampled", "estimator": "k2"}}, "blind to the sign", "estimator 'k1'"),
        ({**SAMPLED, "support": {"kind": "full"}}, "does not depend on the sampled one", "support.kind 'sampled'"),
        ({**SAMPLED, "support": TOP_K}, "its expected gradient is zero", "route: direct"),
        ({**DIRECT, "credit": {"estimator": "gae"}}, "a direct loss has none", "'log_ratio'"),
        ({**DIRECT, "shaping": {"kind": "clip"}}, "a direct loss has none", "leave them at their defaults"),
        ({**DIRECT, "routing": {"kind": "aopd"}}, "a direct loss has none", "'log_ratio'"),
        (top_k("reverse_kl", remainder="raw"), "log(pi/p) + 1", "'generalised'"),
        (top_k("alpha", remainder="raw"), "not a divergence", "'tail'"),
        (top_k("jsd", remainder="renormalised", k=1), "log 1 - log 1", "k >= 2"),
        (
            {
                **SAMPLED,
                "objective": {"route": "log_ratio", "divergence": "forward_kl"},
                "credit": {"estimator": "gae"},
            },
            "no chain rule over time",
            "estimator: immediate",
        ),
        (
            {**SAMPLED, "objective": {"route": "log_ratio", "divergence": "jsd"}, "shaping": {"kind": "power"}},
            "replaces the log-ratio",
            "'reverse_kl'",
        ),
        (
            {**SAMPLED, "credit": {"estimator": "gae", "baseline": "expected"}},
            "taken off twice",
            "use baseline 'none'",
        ),
        (
            {**SAMPLED, "credit": {"estimator": "gae", "gamma": 0.0, "critic": {"form": "per_token"}}},
            "gamma 0 leaves none",
            "form 'split'",
        ),
        (
            {**SAMPLED, "routing": {"kind": "counterfactual", "trigger": "probability", "threshold": 1.0}},
            "never fires",
            "below 1",
        ),
        ({**SAMPLED, "gates": [{"kind": "tip"}, {"kind": "tip"}]}, "listed twice", "once"),
        ({**DIRECT, "gates": [{"kind": "prefix_weight"}]}, "a direct loss has none", "gate 'window'"),
        ({**DIRECT, "gates": [{"kind": "scope"}]}, "imitates sampled tokens", "'log_ratio'"),
        ({**DIRECT, "gates": [{"kind": "window", "start": 3, "stop": 3}]}, "must be above start 3", "stop 3"),
        ({**DIRECT, "aggregation": {"denominator": "gate_mass"}}, "needs a gate", "use 'actions'"),
        ({**DIRECT, "regularizers": [{"kind": "reward"}]}, "a direct loss has none", "'log_ratio'"),
        (
            {**SAMPLED, "regularizers": [{"kind": "reward"}, {"kind": "reward_sign"}]},
            "adds to what 'reward_sign' replaces",
            "use one of them",
        ),
        ({**SAMPLED, "regularizers": [{"kind": "entropy"}, {"kind": "entropy"}]}, "listed twice", "summed weight"),
        (
            {**SAMPLED, "regularizers": [{"kind": "reward_sign"}], "routing": {"kind": "counterfactual"}},
            "replaces the teacher's direction",
            "routing.kind 'plain'",
        ),
        ({**SAMPLED, "importance": {"kind": "icepop", "low": 0.9, "cap": 0.5}}, "must be below", "0.5"),
    ],
)
def test_senseless_combinations_are_refused_with_the_reason_and_the_nearest_valid_choice(method, why, instead):
    sentence = refused(method)
    assert sentence.startswith("method")
    assert why in sentence
    assert instead in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"objective": {"route": "direct", "divergence": "jsd", "beta": 0.0}}, "end of the JSD family"),
        ({**SAMPLED, "credit": {"estimator": "return_to_go"}}, "rewards ending early"),
        ({**SAMPLED, "credit": {"estimator": "gae", "critic": {"form": "split"}}}, "rewards ending early"),
        ({**SAMPLED, "credit": {"estimator": "gae"}}, "watch it in both directions"),
        ({**SAMPLED, "shaping": {"kind": "clip"}, "credit": {"baseline": "expected"}}, "unshaped log-ratio"),
        (
            {
                **SAMPLED,
                "credit": {
                    "estimator": "gae",
                    "gamma": 1.0,
                    "critic": {"form": "split", "end_of_sequence": "immediate"},
                },
            },
            "which has no bound",
        ),
        (top_k("reverse_kl", remainder="renormalised"), "does not see mass that leaves"),
        (top_k("forward_kl", remainder="raw"), "can be negative"),
        ({**SAMPLED, "routing": {"kind": "counterfactual"}}, "deliberate bias"),
        (
            {**SAMPLED, "credit": {"estimator": "gae"}, "routing": {"kind": "counterfactual"}},
            "magnitude 'advantage' moves what the credit says",
        ),
        ({**SAMPLED, "routing": {"kind": "aopd", "form": "raw"}}, "keeps pushing"),
        ({**SAMPLED, "regularizers": [{"kind": "trust_region"}]}, "the term is zero"),
        ({**SAMPLED, "regularizers": [{"kind": "entropy"}]}, "'entropy' pulls elsewhere"),
        ({**DIRECT, "objective": {"route": "direct", "divergence": "total_variation"}}, "kink"),
        ({"objective": {"route": "direct", "teacher_temperature": 0.5}}, "read at temperature 0.5"),
        ({"objective": {"route": "direct", "target": {"kind": "veto"}}}, "teacher^(1 / (1 - 0.5))"),
        (
            {"objective": {"route": "direct", "target": {"kind": "extrapolated"}}},
            "teacher^1.25 reference^-0.25",
        ),
    ],
)
def test_known_biases_are_accepted_with_a_warning(method, words):
    assert any(words in sentence for sentence in MethodSpec.model_validate(method).warnings())


@pytest.mark.parametrize("critic", [{"form": "differential"}, {"form": "per_token"}, {"end_of_sequence": "immediate"}])
def test_a_remedy_takes_the_warning_of_early_stopping_away(critic):
    critic = {"form": "split", **critic}
    method = MethodSpec.model_validate({**SAMPLED, "credit": {"estimator": "gae", "gamma": 1.0, "critic": critic}})
    assert not any("ending early" in sentence for sentence in method.warnings())


@pytest.mark.parametrize("name", ["tml-opd", "forward-kl", "vopd", "gkd", "reverse-kl"])
def test_plain_methods_have_nothing_to_warn_of(name):
    assert load(name).method.warnings() == []


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        (SAMPLED, ()),
        ({**SAMPLED, "credit": {"estimator": "gae"}}, ("critic",)),
        ({**SAMPLED, "credit": {"baseline": "group"}}, ("group",)),
        ({**SAMPLED, "gates": [{"kind": "scope"}]}, ("reward", "group")),
        ({**SAMPLED, "regularizers": [{"kind": "reward"}]}, ("reward", "group")),
        ({**SAMPLED, "regularizers": [{"kind": "golden"}]}, ("origin",)),
        ({**SAMPLED, "regularizers": [{"kind": "reference_kl"}]}, ("reference",)),
        ({**SAMPLED, "routing": {"kind": "apo", "anchor": "reference"}}, ("reference",)),
        ({"objective": {"route": "direct", "target": {"kind": "trust_region", "anchor": "reference"}}}, ("reference",)),
        ({"objective": {"route": "direct", "target": {"kind": "trust_region"}}}, ()),
    ],
)
def test_a_method_says_what_it_needs_beside_the_teacher(method, needs):
    assert MethodSpec.model_validate(method).needs == needs


@pytest.mark.parametrize("name", names())
def test_the_distillation_of_a_recipe_is_a_method_of_its_own(name):
    method = load(name).method
    assert method.distillation().regularizers == ()
    assert MethodSpec.model_validate(method.distillation().model_dump()) == method.distillation()
