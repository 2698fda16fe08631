"""Which bytes each token stands for, in every spelling that is understood."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from opd_core.models import same_bytes, token_bytes
from opd_core.spec import UserError
from tests.tokenizers import sentence_piece, shuffled

TEXTS = ["hello 12 + 3 =", " two  blanks", "Zoë: naïve café!\n", "日本語 🙂"]


def spelled(tokenizer, text):
    found = token_bytes(tokenizer, len(tokenizer), param="p")
    return [found[i] for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_its_tokens_are_the_text(text, tokenizer):
    assert b"".join(spelled(tokenizer, text)) == text.encode()
    assert b"".join(spelled(sentence_piece(), text)) == b" " + text.encode()


def test_a_character_may_lie_in_several_tokens(tokenizer):
    assert spelled(tokenizer, "🙂") == [bytes([byte]) for byte in "🙂".encode()]
    assert spelled(sentence_piece(), "é") == [b" ", b"\xc3", b"\xa9"]
    assert spelled(sentence_piece(), "hello12") == [b" hello", b"12"]


def test_special_tokens_and_unused_ids_have_no_bytes(tokenizer):
    found = token_bytes(tokenizer, len(tokenizer) + 2, param="p")
    assert [found[i] for i in tokenizer.all_special_ids] == [None] * 3
    assert found[-2:] == [None, None]
    assert None not in found[3:-2]
    copy = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|eos|>")
    copy.add_tokens(["<think> ä", AddedToken("<tool>", special=True)])  # special, and of no role
    assert token_bytes(copy, len(copy), param="p")[-2:] == ["<think> ä".encode(), None]


def test_tokens_are_matched_by_their_bytes_whatever_their_ids(tokenizer):
    other, new = shuffled(tokenizer)
    ours, theirs = (token_bytes(one, len(one), param="p") for one in (tokenizer, other))
    assert same_bytes(ours, theirs) == {i: new[i] for i in range(3, len(tokenizer))}


def test_tokens_of_both_spellings_are_matched():
    """Of two ids with the same bytes the one that text is encoded by."""
    piece = sentence_piece()
    theirs = token_bytes(piece, len(piece), param="p")
    blank = piece.convert_tokens_to_ids("\u2581")
    assert theirs.index(b" ") < blank
    assert same_bytes([None, b" ", b"\xc3", b"12", b"absent"], theirs) == {
        1: blank,
        2: piece.convert_tokens_to_ids("<0xC3>"),
        3: piece.convert_tokens_to_ids("12"),
    }


def test_a_tokenizer_whose_tokens_say_nothing_is_refused():
    backend = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    with pytest.raises(UserError, match="which bytes they stand for") as raised:
        token_bytes(words, 2, param="teacher.tokenizer")
    assert (raised.value.param, raised.value.code) == ("teacher.tokenizer", "unsupported_tokenizer")
