"""A cache of fixed size writes what a growing one writes; on a GPU the recorded step does, too (tests/gpu)."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from opd_core.models import load_model
from opd_core.rollout import FixedEngine, uniform_noise, write
from opd_core.rollout.fixed import _WIDTHS
from opd_core.spec import ModelSpec, RolloutSpec, UserError
from opd_core.training.engine import choose_engine

SHORT = [[5, 6, 7, 8], [9], [10, 11], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14]] * 6
LONG = [[5 + i % 20 for i in range(_WIDTHS + length)] for length in (1, 3, 9)]


@pytest.fixture
def student(tiny_world, monkeypatch):
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
    return load_model(ModelSpec(model=str(tiny_world.student)), device="cpu", trainable=True, role="student")


def noise_for(prompts, step=1):
    return uniform_noise(0, step, [(i, 0) for i in range(len(prompts))], 12)


def written(student, prompts, engine=None, step=1, **settings):
    noise = noise_for(prompts, step)
    return write(student, prompts, max_new_tokens=12, noise=noise, engine=engine, **settings)


def assert_alike(one, other):
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.tokens[one.mask], other.tokens[other.mask])
    torch.testing.assert_close(one.behaviour_logp, other.behaviour_logp, atol=2e-5, rtol=0)


@pytest.mark.parametrize("prompts", [SHORT, LONG], ids=["short", "longer than one width"])
def test_it_writes_what_a_growing_cache_writes(student, prompts):
    engine = FixedEngine(student, torch.float32)
    growing = written(student, prompts)
    assert int(growing.lengths.min()) < 12 or prompts is LONG  # some rows end early and are dropped
    assert_alike(written(student, prompts, engine), growing)


def test_nothing_is_left_of_the_batch_before(student):
    engine = FixedEngine(student, torch.float32)
    other = [[*prompt[::-1], 20] for prompt in SHORT]
    for step, prompts in enumerate((SHORT, other, LONG, SHORT)):
        assert_alike(written(student, prompts, engine, step), written(student, prompts, step=step))


def test_batches_of_rows_and_greedy_writing(student):
    engine = FixedEngine(student, torch.float32)
    assert_alike(written(student, SHORT, engine, batch_rows=7), written(student, SHORT, batch_rows=7))
    greedy = [write(student, SHORT, max_new_tokens=6, noise=None, engine=each) for each in (engine, None)]
    assert_alike(*greedy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_writes_with_the_weights_of_today(student, dtype):
    engine = FixedEngine(student, dtype)
    before = written(student, SHORT, engine)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(0.5)
    after = written(student, SHORT, engine)
    assert not torch.equal(before.behaviour_logp, after.behaviour_logp)
    assert_alike(after, written(student, SHORT, FixedEngine(student, dtype)))


def test_a_coarser_copy_leaves_the_student_as_it_was(student):
    engine = FixedEngine(student, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = written(student, SHORT, engine)
    fine = written(student, SHORT)
    assert {parameter.dtype for parameter in student.model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in student.model.parameters())
    same = coarse.tokens[:, 0] == fine.tokens[:, 0]
    assert float(same.float().mean()) > 0.8
    gap = (coarse.behaviour_logp - fine.behaviour_logp)[same, 0].abs().max()
    assert 0 < float(gap) < 0.1


def test_the_settings_of_determinism_come_back(student):
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        written(student, SHORT, FixedEngine(student, torch.float32))
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


_SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.mark.parametrize(
    "model",
    [
        MistralForCausalLM(MistralConfig(**_SMALL, sliding_window=4)),
        LlamaForCausalLM(
            LlamaConfig(**_SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
        ),
    ],
    ids=["sliding window", "frequencies that grow"],
)
def test_what_has_no_fixed_size_is_named(student, model):
    student.model = model
    with pytest.raises(UserError, match=r"rollout\.cache: 'fixed' is not possible"):
        choose_engine(RolloutSpec(cache="fixed"), student, device=torch.device("cpu"), dtype=torch.float32)
    assert choose_engine(RolloutSpec(), student, device=torch.device("cuda"), dtype=torch.float32) is None


def test_a_gpu_gets_it_and_a_cpu_does_not(student):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_engine(RolloutSpec(), student, device=cpu, dtype=torch.float32) is None
    assert choose_engine(RolloutSpec(cache="growing"), student, device=cuda, dtype=torch.float32) is None
    assert isinstance(choose_engine(RolloutSpec(), student, device=cuda, dtype=torch.float32), FixedEngine)
    assert isinstance(choose_engine(RolloutSpec(cache="fixed"), student, device=cpu, dtype=torch.float32), FixedEngine)
