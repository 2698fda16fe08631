"""Two models are compared id by id, so their ids must mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from opd_core.models import check_vocabularies, token_texts, vocabulary_warnings
from opd_core.spec import UserError


def with_tokens(tokenizer: PreTrainedTokenizerFast, directory: Path, *tokens: str) -> PreTrainedTokenizerFast:
    tokenizer.save_pretrained(directory)
    copy = PreTrainedTokenizerFast.from_pretrained(directory)
    copy.add_tokens(list(tokens))
    return copy


def test_same_tokenizer_different_padding(make, load) -> None:
    student, teacher = load(make("llama", name="s", rows=320)), load(make("qwen3", name="t", rows=384))
    assert check_vocabularies(student, teacher) == 300
    assert student.head.vocab_size == teacher.head.vocab_size == student.vocab_size == 300


def test_the_longer_vocabulary_is_cut(make, load, tokenizer, tmp_path) -> None:
    longer = with_tokens(tokenizer, tmp_path / "tokens", "<|think|>")
    student, teacher = load(make("llama", name="s")), load(make("llama", name="t", tokenizer=longer))
    assert teacher.vocab_size == 301
    assert check_vocabularies(student, teacher) == 300
    assert teacher.head.rows()[0].shape[0] == teacher.vocab_size == 300


def test_different_vocabularies_are_named(make, load, tokenizer, tmp_path) -> None:
    a = with_tokens(tokenizer, tmp_path / "a", "<|think|>", "same")
    b = with_tokens(tokenizer, tmp_path / "b", "<|plan|>", "same")
    student, teacher = load(make("llama", name="s", tokenizer=a)), load(make("llama", name="t", tokenizer=b))
    with pytest.raises(UserError) as caught:
        check_vocabularies(student, teacher)
    assert caught.value.code == "different_vocabularies"
    assert "1 of 302 ids" in caught.value.message
    assert "id 300 is '<|think|>' for the student and '<|plan|>' for the teacher" in caught.value.message
    assert student.vocab_size == 302  # nothing was cut


def test_other_roles_for_special_tokens_are_a_warning(make, load, tokenizer, tmp_path) -> None:
    other = with_tokens(tokenizer, tmp_path / "other")
    other.eos_token = "<|pad|>"
    student, teacher = load(make("llama", name="s")), load(make("llama", name="t", tokenizer=other))
    check_vocabularies(student, teacher)
    (warning,) = vocabulary_warnings(student, teacher)
    assert "eos_token is '<|eos|>' for the student and '<|pad|>' for the teacher" in warning
    assert vocabulary_warnings(student, student) == []


def test_a_teacher_without_the_students_eos_is_refused(make, load, tokenizer, tmp_path) -> None:
    longer = with_tokens(tokenizer, tmp_path / "tokens", "<|end|>")
    longer.eos_token = "<|end|>"
    student, teacher = load(make("llama", name="s", tokenizer=longer)), load(make("llama", name="t"))
    student.eos_ids = (300,)
    with pytest.raises(UserError, match="end-of-sequence"):
        check_vocabularies(student, teacher)


def test_token_texts(tokenizer) -> None:
    texts = token_texts(tokenizer, len(tokenizer) + 2)
    assert texts[:3] == ["<|pad|>", "<|bos|>", "<|eos|>"]
    assert texts[-2:] == ["", ""]
    ids = tokenizer("Ann has 12 apples")["input_ids"]
    assert "".join(texts[i] for i in ids) == "Ann has 12 apples"
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)
