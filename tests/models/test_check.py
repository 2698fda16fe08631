"""The checks go red when the split is wrong, and say why."""

from __future__ import annotations

import pytest
import torch

from opd_core.models import check as checks
from opd_core.models import check_decoding, check_trunk_and_head, load_model
from opd_core.models import load as loading
from opd_core.models import trunk as trunks
from opd_core.spec import ModelSpec, UserError


@pytest.mark.parametrize(
    ("family", "settings", "attribute", "neutral", "field"),
    [
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0}, "soft_cap", None, "final_logit_softcapping = 2.0"),
        ("cohere", {"logit_scale": 0.25}, "scale", 1.0, "logit_scale = 0.25"),
        ("granite", {"logits_scaling": 3.0}, "scale", 1.0, "logits_scaling = 3.0"),
    ],
)
def test_a_skipped_logit_transform_is_caught(family, settings, attribute, neutral, field, make, load) -> None:
    lm = load(make(family, **settings))
    setattr(lm.head, attribute, neutral)
    with pytest.raises(UserError, match="transforms its logits") as caught:
        check_trunk_and_head(lm)
    assert field in caught.value.message


def test_a_wrong_bias_is_caught(make, load) -> None:
    lm = load(make("phi"))
    assert lm.head.bias is not None
    lm.head.bias = None
    with pytest.raises(UserError, match="differ from its own logits"):
        check_trunk_and_head(lm)


def test_not_a_number_is_caught(make, load) -> None:
    lm = load(make("llama"))
    with torch.no_grad():
        lm.head.weight[5] = float("nan")
    with pytest.raises(UserError):
        check_trunk_and_head(lm)


def test_a_model_that_looks_ahead_is_refused(make, load) -> None:
    lm = load(make("gpt2"))
    base = lm.trunk.base

    class Ahead(torch.nn.Module):
        def forward(self, input_ids, attention_mask, position_ids=None, past_key_values=None, use_cache=False, **_):
            out = base(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)
            out.last_hidden_state = out.last_hidden_state + out.last_hidden_state.mean(1, keepdim=True)
            return out

    lm.model.transformer = Ahead()
    lm.trunk = trunks.Trunk(lm.model.transformer)
    with pytest.raises(UserError, match="not causal"):
        check_trunk_and_head(lm)


def test_a_model_without_a_cache_is_refused(make, load, monkeypatch) -> None:
    lm = load(make("llama"))
    monkeypatch.setattr(lm.trunk, "accepts", lm.trunk.accepts - {"past_key_values", "cache", "use_cache"})

    class Forgetful(torch.nn.Module):
        def forward(self, input_ids, attention_mask, position_ids=None, use_cache=False, return_dict=True):
            return base(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False)

    base = lm.trunk.base
    lm.trunk.base = Forgetful()
    check_trunk_and_head(lm)
    with pytest.raises(UserError, match="cannot write token by token"):
        check_decoding(lm)


def test_a_model_whose_state_minds_padding_is_refused(make, load) -> None:
    """Mamba: old transformers give it no cache of theirs, new ones a cache that takes padding for tokens."""
    lm = load(make("mamba", intermediate_size=None, num_attention_heads=None, max_position_embeddings=None))
    check_trunk_and_head(lm)
    with pytest.raises(UserError, match=r"cannot write token by token|writes and scores differently"):
        check_decoding(lm)


def test_a_model_that_minds_left_padding_is_refused(make, load) -> None:
    """MiniMax's linear attention takes padding for tokens; its cached decoding is not its own prefill."""
    lm = load(make("minimax", num_key_value_heads=2, head_dim=8, layer_types=["linear_attention", "full_attention"]))
    with pytest.raises(UserError, match="writes and scores differently"):
        check_decoding(lm)


def test_wrong_positions_are_caught(make, load, monkeypatch) -> None:
    lm = load(make("gpt2"))
    monkeypatch.setattr(
        "opd_core.models.check.position_ids", lambda mask: torch.arange(mask.shape[1]).expand(mask.shape)
    )
    with pytest.raises(UserError, match="writes and scores differently"):
        check_decoding(lm)


def test_an_encoder_is_refused(make) -> None:
    directory = make("bert")
    with pytest.raises(UserError):
        check_trunk_and_head(load_model(ModelSpec(model=str(directory)), trainable=False, role="teacher"))


def test_a_model_that_cannot_be_split_is_refused(make, load, monkeypatch) -> None:
    monkeypatch.setattr(loading, "base_model", lambda model: None)
    with pytest.raises(UserError, match="trunk and head cannot be split"):
        load(make("llama"))


def test_coarse_weights_are_held_to_what_they_can_keep(tiny_world, monkeypatch):
    """A teacher that writes is kept in bfloat16 on a GPU. How far its sums are apart is the processor's business."""
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
    model = ModelSpec(model=str(tiny_world.teacher))
    coarse, fine = (
        load_model(model, trainable=False, role="teacher", dtype=dtype) for dtype in (torch.bfloat16, torch.float32)
    )
    monkeypatch.setattr(checks, "_largest", lambda *_: 2e-3)
    assert check_decoding(coarse) == 2e-3
    with pytest.raises(UserError, match="writes and scores differently"):
        check_decoding(fine)
