"""Do student and teacher speak of the same tokens? Distributions are compared id by id, so they must."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from opd_core.models.language_model import LanguageModel
from opd_core.spec import UserError

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def check_vocabularies(student: LanguageModel, teacher: LanguageModel) -> int:
    """The number of token ids that both models share; both heads are cut to it.

    Ids must mean the same token wherever both vocabularies have one. Tokens that only the longer vocabulary has are
    cut off, as are embedding rows that belong to no token. UserError with an example otherwise.
    """
    shared = min(student.vocab_size, teacher.vocab_size)
    ours, theirs = _tokens_by_id(student.tokenizer, shared), _tokens_by_id(teacher.tokenizer, shared)
    differing = [i for i in range(shared) if ours.get(i) != theirs.get(i)]
    if differing:
        example = differing[0]
        special = _special_differences(student.tokenizer, teacher.tokenizer)
        also = f"; their special tokens differ too ({'; '.join(special)})" if special else ""
        raise UserError(
            f"teacher.model: '{teacher.name}' and student '{student.name}' have different vocabularies: "
            f"{len(differing)} of {shared} ids mean different tokens, for example id {example} is "
            f"{_shown(ours.get(example))} for the student and {_shown(theirs.get(example))} for the teacher{also}; "
            "with teacher.tokenizer {align: exact} it reads the student's text in its own tokens",
            param="teacher.model",
            code="different_vocabularies",
        )
    lost = [i for i in student.eos_ids if i >= shared]
    if len(lost) == len(student.eos_ids):
        raise UserError(
            f"teacher.model: '{teacher.name}' knows none of the student's end-of-sequence tokens "
            f"({', '.join(_shown(student.tokenizer.convert_ids_to_tokens(i)) for i in lost)})",
            param="teacher.model",
            code="different_vocabularies",
        )
    student.restrict_vocabulary(shared)
    teacher.restrict_vocabulary(shared)
    return shared


def vocabulary_warnings(student: LanguageModel, teacher: LanguageModel) -> list[str]:
    """Sentences about differences that do not stop a run but bias it: special tokens with other roles."""
    return [
        f"student and teacher share their vocabulary but not their special tokens: {difference}"
        for difference in _special_differences(student.tokenizer, teacher.tokenizer)
    ]


def token_texts(tokenizer: PreTrainedTokenizerBase, size: int) -> list[str]:
    """What to show for each token id below ``size``: decoded text; special tokens as written; "" for unused ids."""
    tokens = _tokens_by_id(tokenizer, size)
    added = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
    texts = []
    for i in range(size):
        token = tokens.get(i)
        if token is None:
            texts.append("")
        elif i in added:
            texts.append(added[i])
        else:
            text = tokenizer.convert_tokens_to_string([token])
            # Part of a multi-byte character: the vocabulary's own spelling says more than a replacement sign.
            texts.append(token if "�" in text else text)
    return texts


def _tokens_by_id(tokenizer: PreTrainedTokenizerBase, size: int) -> dict[int, str]:
    return {i: token for token, i in tokenizer.get_vocab().items() if i < size}


def _special_differences(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> list[str]:
    return [
        f"{name} is {_shown(ours)} for the student and {_shown(theirs)} for the teacher"
        for name in _SPECIAL
        if (ours := getattr(student, name)) != (theirs := getattr(teacher, name))
    ]


def _shown(token: str | None) -> str:
    return "no token" if token is None else repr(str(token))
