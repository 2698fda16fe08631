"""Checkpoints with random weights: for speed, weights do not matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_ATTENTION = {"num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 128}
# On the demo's tokenizer.
THIRTY_MILLION = {
    "student": {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 10, **_ATTENTION},
    "teacher": {"hidden_size": 640, "intermediate_size": 1280, "num_hidden_layers": 12, **_ATTENTION},
}
_QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
}
# From the configurations that Qwen publishes for Qwen3-0.6B and Qwen3-4B.
QWEN3 = {
    "student": {
        **_QWEN3, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16
    },
    "teacher": {
        **_QWEN3, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32
    },
}  # fmt: skip
_QWEN3_TOKENS = 151_669  # that its tokenizer has


def make(sizes: dict[str, dict[str, Any]], folder: Path) -> dict[str, str]:
    """Write one checkpoint for each name; {name: directory}. On a GPU, where there is one, in bfloat16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from opd_core.tasks.demo_tokenizer import make_tokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for seed, (name, size) in enumerate(sizes.items()):
        tokenizer = make_tokenizer()
        if "vocab_size" in size:
            tokenizer = _widened(tokenizer, _QWEN3_TOKENS)
        torch.manual_seed(seed)
        config = AutoConfig.for_model(
            **{"model_type": "llama", "vocab_size": len(tokenizer), "tie_word_embeddings": True, **size},
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16 if device == "cuda" else torch.float32
            )
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: str(folder / name) for name in sizes}


def _widened(tokenizer: Any, size: int) -> Any:
    """The same with words that no prompt has, as part of its own vocabulary: 150,000 added tokens load in minutes."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    words = raw["model"]["vocab"]
    words |= {f"<{i}>": i for i in range(len(words), size)}
    special = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(raw)), padding_side="left", **special)
