"""Models in 8 and 4 bits: close to what they were, counted as what they are, trained through an adapter only.

All but the refusals need bitsandbytes, which is no part of the development set-up: pip install 'opd[quantization]'.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from opd_core.models import (
    adapter_weights,
    cast_parameters,
    check_decoding,
    check_trunk_and_head,
    count_weights,
    load_model,
    load_student,
    restore_weights,
    save_model,
    save_student,
)
from opd_core.recipes import resolve
from opd_core.spec import ModelSpec, UserError
from opd_core.training.run import train

installed = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 5, 6, 7]])
LORA = {"rank": 2, "merge": False}


@pytest.fixture
def load(tiny_world, monkeypatch):
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
    reference = ModelSpec(model=str(tiny_world.teacher))
    return lambda **options: load_model(reference, trainable=False, role="teacher", **options)


@torch.no_grad()
def logp(lm):
    return lm.head(lm.trunk(IDS, torch.ones_like(IDS)).last_hidden_state).log_softmax(-1)


@installed
@pytest.mark.parametrize(("quantization", "bits", "nats"), [("int8", 8, 0.05), ("nf4", 4, 0.5)])
def test_it_says_about_what_it_said_in_fewer_bits(quantization, bits, nats, load):
    plain, rounded = load(), load(quantization=quantization)
    check_trunk_and_head(rounded)
    check_decoding(rounded)
    layer = rounded.model.model.layers[0].mlp.up_proj.weight
    assert layer.nbytes * 8 == bits * plain.model.model.layers[0].mlp.up_proj.weight.numel()
    assert rounded.head.weight.dtype == torch.float32
    assert count_weights(rounded.model) == count_weights(plain.model)
    assert rounded.flop_parameters == plain.flop_parameters
    theirs, ours = logp(plain), logp(rounded)
    kl = float((theirs.exp() * (theirs - ours)).sum(-1).mean())
    assert 0.0 < kl < nats
    cast_parameters(rounded.model, torch.bfloat16)  # what else there is of it; the codes stay
    assert layer.dtype in (torch.int8, torch.uint8)
    assert rounded.head.weight.dtype == torch.bfloat16


@installed
def test_only_the_adapter_of_a_rounded_student_learns_and_is_saved(tiny_spec, tiny_world, tmp_path):
    model = {"model": str(tiny_world.student), "quantization": "nf4", "lora": LORA}
    spec = tiny_spec(student=model, teacher={"model": str(tiny_world.teacher), "quantization": "int8"})
    found = load_student(spec, trainable=True)
    assert {value.dtype for value in adapter_weights(found).values()} == {torch.float32}
    found.trunk(IDS, torch.ones_like(IDS)).last_hidden_state[..., 0].sum().backward()
    touched = {name for name, value in found.model.named_parameters() if value.grad is not None}
    assert touched == set(adapter_weights(found))
    save_student(found, tmp_path / "adapter")
    restore_weights(found, tmp_path / "adapter")
    save_model(load_student(tiny_spec(), trainable=False), tmp_path / "whole")
    with pytest.raises(UserError, match="start from an adapter"):
        restore_weights(found, tmp_path / "whole")

    report = train(spec, tmp_path / "out", emit=lambda _: None)
    assert (tmp_path / "out" / "student" / "adapter_model.safetensors").is_file()
    assert any("teacher.quantization" in sentence for sentence in report["warnings"])


def test_without_the_library_it_is_named(load, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'opd\\[quantization\\]'") as refused:
        load(quantization="nf4")
    assert (refused.value.param, refused.value.code) == ("teacher.quantization", "not_installed")


@pytest.mark.parametrize(
    ("student", "sections", "words"),
    [
        ({}, {}, "merge: false"),
        ({"lora": {"rank": 2}}, {}, "merge: false"),
        ({"lora": LORA}, {"resources": {"processes": 2, "sharding": "fsdp2"}}, "resources.sharding 'fsdp2'"),
        ({"lora": LORA, "compile": True}, {}, "student.compile"),
    ],
)
def test_what_cannot_be_had_together_is_refused(student, sections, words, tiny_spec, tiny_world):
    spec = tiny_spec(student={"model": str(tiny_world.student), "quantization": "nf4", **student}, **sections)
    with pytest.raises(UserError) as refused:
        resolve(spec)
    assert refused.value.param == "student.quantization"
    assert words in refused.value.message
    assert "'nf4'" in refused.value.message


def test_only_a_model_has_weights_to_round(tiny_spec):
    with pytest.raises(ValueError, match="quantization is only for a model"):
        tiny_spec(teacher={"self": {}, "quantization": "nf4"})
