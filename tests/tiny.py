"""The smallest world in which real jobs train: two random checkpoints, a tokenizer and additions, made on the spot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TinyWorld:
    """Two checkpoints with one byte-level BPE tokenizer, and a file of problems."""

    student: Path
    teacher: Path
    problems: Path
    root: Path


def make_tiny_world(root: Path, *, head_dim: int | None = None) -> TinyWorld:
    """Random student and teacher of different widths, a tokenizer trained here, additions as JSONL.

    ``head_dim``: of their attention, where something needs more than a quarter of their width.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    problems = [{"question": f"{a} + {b} =", "answer": str(a + b), "digit": "7"} for a in range(12) for b in range(12)]
    file = root / "additions.jsonl"
    file.write_text("\n".join(json.dumps(problem) for problem in problems), encoding="utf-8")

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    corpus = [f"{p['question']} {p['answer']}" for p in problems]
    bpe.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<eos>"], show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>")
    folders = [
        write_tiny_model(root / name, tokenizer, width=width, tied=name == "student", head_dim=head_dim)
        for name, width in (("student", 32), ("teacher", 48))
    ]
    return TinyWorld(student=folders[0], teacher=folders[1], problems=file, root=root)


def write_tiny_model(folder: Path, tokenizer: Any, *, width: int, tied: bool, head_dim: int | None = None) -> Path:
    """A random checkpoint of two layers, the same for the same width and tokenizer; returns ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(width)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_body(world: TinyWorld, **sections: Any) -> dict[str, Any]:
    """The body of a job on the tiny world; keyword arguments replace whole sections."""
    base = {
        "name": "tiny",
        "student": {"model": str(world.student)},
        "teacher": {"model": str(world.teacher)},
        "task": {
            "dataset": str(world.problems),
            "prompt_column": "question",
            "answer_column": "answer",
            "eval_examples": 16,
        },
        "rollout": {"prompts_per_step": 6, "samples_per_prompt": 2, "max_new_tokens": 8},
        "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        "schedule": {"steps": 4, "evaluate_every": 2, "checkpoint_every": 2},
        "telemetry": {"sequences_per_step": 3, "top_k": 4, "probe_states": 6},
    }
    return {**base, **sections}
