"""Plain prompts and chat prompts: exactly one BOS, exactly the template's tokens."""

from __future__ import annotations

import pytest
from tokenizers import processors

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import load_task
from opd_core.tasks.prompts import Prompts


def test_chat_is_tokenised_as_the_template_does_it(chat_tokenizer) -> None:
    prompts = Prompts(chat_tokenizer, "auto", None)
    text = prompts.render("Hello?")
    assert text == "<bos><user>Hello?</user><assistant>"
    ids = prompts.encode(text)
    own = chat_tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello?"}], add_generation_prompt=True, return_dict=True
    )
    assert ids == own["input_ids"]
    assert ids.count(chat_tokenizer.bos_token_id) == 1


def test_plain_has_one_bos_even_with_a_chat_template(chat_tokenizer, plain_tokenizer) -> None:
    for prompts in (Prompts(chat_tokenizer, "plain", None), Prompts(plain_tokenizer, "auto", None)):
        assert prompts.render("Hello?") == "Hello?"
        assert prompts.encode("Hello?") == [1, *chat_tokenizer("Hello?", add_special_tokens=False)["input_ids"]]


def test_a_plain_prompt_does_not_end_before_it_begins(plain_tokenizer) -> None:
    plain_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    assert plain_tokenizer("Hello?")["input_ids"][-1] == 2
    assert Prompts(plain_tokenizer, "plain", None).encode("Hello?")[-1] != 2


def test_system_prompt(chat_tokenizer, plain_tokenizer) -> None:
    chat = Prompts(chat_tokenizer, "chat", "Be brief.")
    assert chat.render("Hi") == "<bos><system>Be brief.</system><user>Hi</user><assistant>"
    own = [{"role": "system", "content": "Be long."}, {"role": "user", "content": "Hi"}]
    assert chat.render(own) == "<bos><system>Be long.</system><user>Hi</user><assistant>"
    assert Prompts(plain_tokenizer, "plain", "Be brief.").render("Hi") == "Be brief.\n\nHi"


def test_columns_of_messages(write_jsonl, chat_tokenizer) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "eh"}]} for i in range(4)
    ]
    task = load_task(TaskSpec(dataset=write_jsonl(rows), eval_examples=0), chat_tokenizer, seed=0)
    assert task.train[0].prompt == "<bos><user>0?</user><assistant>eh</assistant><assistant>"
    assert chat_tokenizer.decode(task.encode(task.train[0])) == task.train[0].prompt


def test_what_is_refused(chat_tokenizer, plain_tokenizer) -> None:
    with pytest.raises(UserError, match="chat template") as caught:
        Prompts(plain_tokenizer, "chat", None)
    assert caught.value.param == "task.template"
    with pytest.raises(UserError, match="lists of messages"):
        Prompts(chat_tokenizer, "plain", None).render([{"role": "user", "content": "Hi"}])
    with pytest.raises(UserError, match="got the fields from, value"):
        Prompts(chat_tokenizer, "chat", None).render([{"from": "user", "value": "Hi"}])
    chat_tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UserError, match="System role not supported"):
        Prompts(chat_tokenizer, "chat", "Be brief.").render("Hi")
