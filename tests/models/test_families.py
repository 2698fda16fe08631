"""Trunk + head, left padding and cached decoding, over the architectures that people distil."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from opd_core.models import check_decoding, check_trunk_and_head, position_ids
from opd_core.rollout import can_share, imitated, visit, visit_sharing

GQA = {"num_key_value_heads": 2}
GQA8 = {"num_key_value_heads": 2, "head_dim": 8}
SLIDING = {"sliding_window": 4}  # shorter than the test sequences
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GQA,
    "mistral": GQA | SLIDING,
    "mixtral": GQA,
    "ministral": GQA8 | SLIDING,
    "qwen2": GQA,
    "qwen2_moe": GQA | {"moe_intermediate_size": 16, "num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3": GQA8,
    "qwen3_moe": GQA8 | {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "qwen3_5_text": GQA8 | LINEAR,
    "gemma": GQA8,
    "gemma2": GQA8 | SLIDING | {"final_logit_softcapping": 2.0},
    "gemma3_text": GQA8 | SLIDING | {"final_logit_softcapping": 2.0},
    "cohere": {"logit_scale": 0.25},
    "cohere2": SLIDING | {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
    "granitemoe": {"logits_scaling": 3.0, "num_local_experts": 4},
    "hyperclovax": {"logits_scaling": 3.0},
    "minicpm3": {"dim_model_base": 8},  # logits divided by hidden_size / dim_model_base
    "falcon_h1": GQA | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "lm_head_multiplier": 0.3},
    "nanochat": {"final_logit_softcapping": 2.0},
    "gpt2": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "gpt_oss": GQA8 | SLIDING | {"num_local_experts": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "phi": {},
    "phi3": {},
    "phimoe": GQA | {"num_local_experts": 4},
    "stablelm": GQA,
    "starcoder2": SLIDING,
    "olmo2": {},
    "olmo3": SLIDING,
    "falcon": {},
    "bloom": {},
    "mpt": {
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "hidden_size": None,
        "intermediate_size": None,
        "num_hidden_layers": None,
        "num_attention_heads": None,
        "max_position_embeddings": None,
    },
    "smollm3": GQA,
    "glm4": GQA8,
    "exaone4": GQA | SLIDING | {"layer_types": ["sliding_attention", "full_attention"]},
    "nemotron": GQA8,
    "helium": GQA8,
    "lfm2": GQA | {"layer_types": ["conv", "full_attention"]},
    "llama4_text": GQA8
    | {"num_local_experts": 2, "intermediate_size_mlp": 64, "num_experts_per_tok": 1, "attention_chunk_size": 64},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, make, load, tokenizer) -> None:
    lm = load(make(family, **FAMILIES[family]))

    # The package's own checks ...
    assert check_trunk_and_head(lm) <= 1e-4
    assert check_decoding(lm) <= 1e-3

    # ... and the same facts asked directly: the model's own forward, with its own idea of everything.
    words = tokenizer(["The quick brown fox jumps", "Zoë buys 12 pears"])["input_ids"]
    assert 5 < len(words[0]) != len(words[1]) > 5
    longest = max(map(len, words))
    ids = torch.tensor([[lm.pad_id] * (longest - len(row)) + row for row in words])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in words])
    with torch.no_grad():
        ours = lm.head(lm.trunk(ids, mask, position_ids(mask)).last_hidden_state)
        for row, alone in enumerate(words):
            own = lm.model(input_ids=torch.tensor([alone])).logits[0, :, : lm.vocab_size]
            torch.testing.assert_close(ours[row, -len(alone) :], own, atol=1e-3, rtol=0)
    assert ours.dtype == torch.float32
    assert ours[mask.bool()].std() > 0.02  # logits that say nothing would agree with anything

    # What samples of one prompt share is read once, where the family can: the states are those of reading it for each.
    if can_share(lm):
        completions = imitated([words[0], words[1], words[0], words[1]], [words[1][:5], words[0], [7], words[1]], lm)
        shared, plain = visit_sharing(lm.trunk, completions, worth=0), visit(lm.trunk, completions)
        torch.testing.assert_close(lm.head(shared.rows), lm.head(plain.rows), atol=1e-3, rtol=0)
        torch.testing.assert_close(lm.head(shared.ends), lm.head(plain.ends), atol=1e-3, rtol=0)


def test_prompts_are_shared_by_most_families_and_never_beside_a_window_or_a_state(make, load) -> None:
    shares = {name: can_share(load(make(name, **FAMILIES[name]))) for name in ("llama", "qwen3", "glm4", "mixtral")}
    assert all(shares.values()), shares
    held = {name: can_share(load(make(name, **FAMILIES[name]))) for name in ("mistral", "gemma3_text", "falcon_h1")}
    assert not any(held.values()), held


def test_padding_never_reaches_a_real_token(make, load) -> None:
    lm = load(make("llama"))
    ids = torch.randint(3, 200, (2, 10), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0] * 4 + [1] * 6, [1] * 10])
    other = ids.clone()
    other[0, :4] = 7
    with torch.no_grad():
        a, b = (lm.trunk(x, mask, position_ids(mask)).last_hidden_state for x in (ids, other))
    assert torch.equal(a[0, 4:], b[0, 4:])


def test_position_ids_count_real_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
