"""The bytes that each token stands for: what tokens of different vocabularies have in common.

Two spellings cover the byte-pair and SentencePiece tokenizers of today's language models: byte-level (every byte is
one printable character, GPT-2), and blanks written as U+2581 with <0xXX> for single bytes (SentencePiece).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from opd_core.spec import UserError

_BLANK = "\u2581"
_ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(tokenizer: PreTrainedTokenizerBase, size: int, *, param: str) -> list[bytes | None]:
    """What each id below ``size`` adds to a text; None for special tokens and ids without a token.

    Raises UserError about the field ``param`` for a tokenizer that spells its tokens in another way.
    """
    byte_level = _is_byte_level(tokenizer, param)
    found: list[bytes | None] = [None] * size
    for token, i in tokenizer.get_vocab().items():
        if i < size:
            found[i] = _byte_level(token) if byte_level else _sentence_piece(token)
    for i, added in tokenizer.added_tokens_decoder.items():
        if i < size:
            found[i] = None if added.special else str(added).encode()
    for i in tokenizer.all_special_ids:
        if i < size:
            found[i] = None
    return [spelled or None for spelled in found]


def same_bytes(ours: list[bytes | None], theirs: list[bytes | None]) -> dict[int, int]:
    """Our id -> their id of the token with the same bytes, one to one.

    Where ids of one vocabulary stand for the same bytes, it is the last that counts: single bytes come first in a
    SentencePiece vocabulary, and text is never encoded by them where there is a token for it.
    """
    known = {spelled: i for i, spelled in enumerate(theirs) if spelled is not None}
    own = {spelled: i for i, spelled in enumerate(ours) if spelled is not None}
    return {i: known[spelled] for spelled, i in own.items() if spelled in known}


def _is_byte_level(tokenizer: PreTrainedTokenizerBase, param: str) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [] if backend is None else list(_parts(json.loads(backend.to_str()).get("decoder")))
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return True
    blanks = any(part["type"] == "Replace" and part.get("content") == " " for part in parts)
    if "Metaspace" in kinds or blanks:
        return False
    raise UserError(
        f"{param}: the tokens of {tokenizer.name_or_path or type(tokenizer).__name__!r} do not say which bytes they "
        "stand for; byte-level and SentencePiece tokenizers (of the fast kind) do",
        param=param,
        code="unsupported_tokenizer",
    )


def _parts(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decoder is not None:
        yield decoder
        for part in decoder.get("decoders", []):
            yield from _parts(part)


def _byte_level(token: str) -> bytes | None:
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return None


def _sentence_piece(token: str) -> bytes:
    if one := _ONE_BYTE.fullmatch(token):
        return bytes([int(one[1], 16)])
    return token.replace(_BLANK, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """The character of each byte: itself where it can be printed, else one of those from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\xa1"), ord("\xac") + 1), *range(ord("\xae"), 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
