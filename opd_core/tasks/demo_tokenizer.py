"""The demo models' tokenizer: one token per word or number, as an ordinary Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from opd_core.tasks import word_problems as words

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"


def make_tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """73 tokens, and those of ``more`` behind them; texts start with <bos>; decoding joins with blanks."""
    special = [PAD, BOS, EOS, UNK]
    numbers = [str(number) for number in range(words.LARGEST_TOTAL + 1)]
    symbols = ["+", "-", "=", ";", "answer", ".", "How", "many", "?", "has"]
    told = [
        *words.PRONOUNS,
        *dict.fromkeys(words.PRONOUNS.values()),
        *words.ORDER,
        *words.THINGS,
        *words.GAINS,
        *words.LOSSES,
    ]
    assert not {*numbers, *symbols, *told} & {*more}  # a word has one id
    vocabulary = {token: i for i, token in enumerate([*special, *numbers, *symbols, *told, *more])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
