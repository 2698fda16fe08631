"""What is written is an ordinary Hugging Face directory, and reads back bit for bit."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from opd_core.models import restore_weights, save_model


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"tie_word_embeddings": False}),
        ("gpt2", {}),
        ("mixtral", {"num_key_value_heads": 2}),  # experts are stored apart and held together
    ],
)
def test_save_and_restore(family, settings, make, load, tmp_path) -> None:
    lm = load(make(family, **settings), trainable=True)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    save_model(lm, tmp_path / "saved")
    names = {file.name for file in (tmp_path / "saved").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names

    ids = torch.arange(5, 25)[None]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, lm.model(input_ids=ids).logits)
    text = "Ann has 12 apples; naïve café!"
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(text).input_ids == lm.tokenizer(text).input_ids

    fresh = load(tmp_path / "model", trainable=True)
    held = list(fresh.model.parameters())
    restore_weights(fresh, tmp_path / "saved")
    assert all(a is b for a, b in zip(held, fresh.model.parameters(), strict=True))
    for (name, restored), original in zip(fresh.model.named_parameters(), lm.model.parameters(), strict=True):
        assert torch.equal(restored, original), name


def test_restoring_half_a_checkpoint_fails(make, load, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    lm = load(make("llama"), trainable=True)
    save_model(lm, tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    weights.popitem()
    save_file(weights, tmp_path / "saved" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks"):
        restore_weights(lm, tmp_path / "saved")
