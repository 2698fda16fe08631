"""Tokenizers that are not the tiny world's: in another order, with other merges, in SentencePiece's spelling."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.tiny import write_tiny_model

MERGES = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["\u2581", "hello"], ["1", "2"]]


def sentence_piece() -> Any:
    """As Llama 2 spells: blanks as U+2581, one set before every text, <0xXX> for bytes without a token."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    single = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz0123456789+=."]
    tokens = ["<unk>", "<s>", "</s>", *single, *letters, *("".join(pair) for pair in MERGES)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocabulary, [tuple(pair) for pair in MERGES], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def shuffled(tokenizer: Any, *, seed: int = 0) -> tuple[Any, list[int]]:
    """The same tokens and merges with other ids; and of each old id the new one."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    new = list(range(len(state["model"]["vocab"])))
    random.Random(seed).shuffle(new)
    state["model"]["vocab"] = {token: new[i] for token, i in state["model"]["vocab"].items()}
    state["added_tokens"] = [{**token, "id": new[token["id"]]} for token in state["added_tokens"]]
    for role in ((state["post_processor"] or {}).get("special_tokens") or {}).values():
        role["ids"] = [new[i] for i in role["ids"]]
    roles = {name: getattr(tokenizer, name) for name in ("pad_token", "bos_token", "eos_token")}
    known = {name: token for name, token in roles.items() if token is not None}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **known), new


def shuffled_model(source: Path, target: Path, *, seed: int = 0) -> Path:
    """The same model with shuffled ids: what it says of a text stays the same."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, new = shuffled(AutoTokenizer.from_pretrained(source), seed=seed)
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            rows = layer.weight.clone()
            rows[torch.tensor(new)] = layer.weight
            if layer is model.get_input_embeddings() or not model.config.tie_word_embeddings:
                layer.weight.copy_(rows)
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def other_model(target: Path, *, corpus: list[str], tokens: int, width: int = 48, eos: str = "</end>") -> Path:
    """A random model with a byte-level tokenizer of its own: other merges, other special tokens, BOS before a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tokens,
        special_tokens=["<start>", "<hole>", eos],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<start> $A", special_tokens=[("<start>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<start>", eos_token=eos, pad_token="<hole>"
    )
    return write_tiny_model(target, tokenizer, width=width, tied=False)
