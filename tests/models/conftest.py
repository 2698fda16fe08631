"""Tiny random checkpoints of real families, with a real byte-level BPE tokenizer, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from opd_core.models import LanguageModel, load_model
from opd_core.spec import ModelSpec

logging.disable_progress_bar()

COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
CORPUS = ["The quick brown fox jumps over the lazy dog.", "Ann has 12 apples; she buys 5. Zoë: naïve café!"] * 4


def train_tokenizer(vocab_size: int = 300, extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with <|pad|>, <|bos|> and <|eos|>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|bos|>", "<|eos|>", *extra],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", bos_token="<|bos|>", eos_token="<|eos|>"
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(family, rows=V, tokenizer=..., **config) -> directory with a random checkpoint, below the model roots."""
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tmp_path))
    default = tokenizer

    def build(
        family: str,
        *,
        name: str = "model",
        rows: int | None = None,
        tokenizer: PreTrainedTokenizerFast = default,
        seed: int = 0,
        **settings: Any,
    ) -> Path:
        # A setting of None drops a common one that the family does not know.
        known = {key: value for key, value in (COMMON | settings).items() if value is not None}
        special = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        config = AutoConfig.for_model(family, vocab_size=rows or len(tokenizer), **(special | known))
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            # Large enough that a skipped scale, cap or bias shows; norms and biases get noise too.
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.dim() >= 2:
                    parameter.copy_(0.2 * noise)
                else:
                    parameter.add_(0.1 * noise)
        directory = tmp_path / name
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return directory

    return build


@pytest.fixture
def load() -> Callable[..., LanguageModel]:
    """load(directory) -> LanguageModel, as the trainer loads a student."""

    def run(
        directory: Path, *, trainable: bool = False, role: str = "student", dtype: torch.dtype = torch.float32
    ) -> LanguageModel:
        return load_model(ModelSpec(model=str(directory)), trainable=trainable, role=role, dtype=dtype)

    return run
