"""Adapters: nothing at first, alone in training, readable by PEFT, merged for export, and looked past."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from opd_core.models import (
    adapter_weights,
    load_student,
    position_ids,
    restore_weights,
    save_model,
    save_student,
    without_adapter,
)
from opd_core.spec import UserError

IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture
def spec(tiny_spec, tiny_world):
    def make(**lora):
        return tiny_spec(student={"model": str(tiny_world.student), "lora": {"rank": 4, "alpha": 8.0, **lora}})

    return make


def logits(lm):
    mask = torch.ones_like(IDS)
    with torch.no_grad():
        return lm.head(lm.trunk(IDS, mask, position_ids(mask)).last_hidden_state)


def moved(lm, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in adapter_weights(lm).values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return lm


def test_a_new_adapter_changes_nothing_and_depends_on_the_seed_alone(spec, tiny_spec):
    plain = load_student(tiny_spec(), trainable=True)
    torch.manual_seed(1)
    one = load_student(spec(), trainable=True)
    state = torch.get_rng_state()
    two = load_student(spec(), trainable=True)
    assert torch.equal(torch.get_rng_state(), state)  # nothing else is drawn differently because of it
    assert torch.equal(logits(one), logits(plain))
    assert all(
        torch.equal(a, b) for a, b in zip(adapter_weights(one).values(), adapter_weights(two).values(), strict=True)
    )
    assert any(float(value.detach().abs().max()) > 0 for value in adapter_weights(one).values())


def test_only_the_adapter_takes_gradients(spec):
    lm = load_student(spec(), trainable=True)
    trained = {name for name, parameter in lm.model.named_parameters() if parameter.requires_grad}
    assert trained == set(adapter_weights(lm))
    assert trained
    frozen = load_student(spec(), trainable=False)
    assert not any(parameter.requires_grad for parameter in frozen.model.parameters())


def test_the_model_below_is_the_start_and_looking_changes_nothing(spec, tiny_spec):
    lm = moved(load_student(spec(), trainable=True))
    start = logits(load_student(tiny_spec(), trainable=False))
    changed = logits(lm)
    assert float((changed - start).abs().max()) > 1e-2
    assert torch.equal(logits(without_adapter(lm)), start)
    assert torch.equal(logits(lm), changed)
    assert {name for name, p in lm.model.named_parameters() if p.requires_grad} == set(adapter_weights(lm))
    looked_at = moved(load_student(spec(), trainable=False))
    logits(without_adapter(looked_at))
    assert not any(parameter.requires_grad for parameter in looked_at.model.parameters())


def test_peft_reads_a_saved_adapter_and_transformers_the_merged_model(spec, tiny_world, tmp_path):
    lm = moved(load_student(spec(), trainable=True))
    save_student(lm, tmp_path / "adapter")
    save_model(lm, tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny_world.student)
    for model in (
        PeftModel.from_pretrained(base, tmp_path / "adapter"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
    ):
        with torch.no_grad():
            found = model(IDS).logits[..., : lm.vocab_size]
        torch.testing.assert_close(found, logits(lm), atol=2e-5, rtol=0)
    assert sum(file.stat().st_size for file in (tmp_path / "adapter").glob("*.safetensors")) < 60_000
    assert not list(tmp_path.rglob("*.bin"))


def test_an_adapter_is_restored_bit_for_bit(spec, tmp_path):
    lm = moved(load_student(spec(), trainable=True))
    save_student(lm, tmp_path)
    other = load_student(spec(), trainable=True)
    restore_weights(other, tmp_path)
    assert torch.equal(logits(other), logits(lm))


def test_another_shape_is_refused_with_what_was_saved(spec, tiny_spec, tmp_path):
    save_student(load_student(spec(), trainable=True), tmp_path)
    for other in (spec(rank=2), tiny_spec()):
        with pytest.raises(UserError, match="has an adapter of rank 4") as raised:
            restore_weights(load_student(other, trainable=True), tmp_path)
        assert raised.value.param == "student.lora"


def test_a_whole_model_goes_under_an_adapter(spec, tiny_spec, tmp_path):
    plain = load_student(tiny_spec(), trainable=True)
    with torch.no_grad():
        for parameter in plain.model.parameters():
            parameter.mul_(1.1)
    save_student(plain, tmp_path)
    lm = load_student(spec(), trainable=True)
    restore_weights(lm, tmp_path)
    assert torch.equal(logits(lm), logits(plain))


def test_targets_that_are_nowhere_are_refused(spec):
    with pytest.raises(UserError, match="names no linear layer") as raised:
        load_student(spec(targets=["nowhere"]), trainable=True)
    assert raised.value.param == "student.lora.targets"
    chosen = adapter_weights(load_student(spec(targets=["q_proj"]), trainable=True))
    assert all("q_proj" in name for name in chosen)
