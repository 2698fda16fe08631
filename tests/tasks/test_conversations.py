"""Conversations of the data: the chat template says which tokens are the assistant's."""

from __future__ import annotations

from typing import Any

import pytest

from opd_core.spec import JobSpec, TaskSpec, Tool, UserError
from opd_core.tasks import chat_tools, load_task
from opd_core.tasks.conversations import messages_of, transcript
from opd_core.tasks.prompts import Prompts

TURNS = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' %}"
    "%s{{ m['content'] }}<eos>%s~{% else %}{{ m['content'] }}</{{ m['role'] }}>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PLAIN = TURNS.replace("%s", "")
MARKED = TURNS.replace("%s", "{% generation %}", 1).replace("%s", "{% endgeneration %}", 1)
FORGETS = (  # like templates that drop the thoughts of earlier turns
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{% if loop.last %}{{ m['content'] }}{% else %}-{% endif %}"
    "<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "ask"},
    {"role": "tool", "content": "4"},
    {"role": "assistant", "content": "four"},
]
EOS = (2,)


def told(tokenizer: Any, template: str, messages: Any = TALK, system: str | None = None) -> tuple[str, str, str]:
    """(prompt, what is the student's, what is not) as text."""
    tokenizer.chat_template = template
    prompts = Prompts(tokenizer, "auto", system)
    messages = messages_of(messages, 0)
    found = transcript(prompts, messages, EOS, 0)

    def part(wanted: bool) -> str:
        pairs = zip(found.ids, found.own, strict=True)
        return "".join(tokenizer.decode([i]) if own == wanted else "|" for i, own in pairs).strip("|")

    whole = prompts.encode(prompts.rendered(prompts.with_system(messages), opens=False))
    assert whole[-len(found.ids) - 1 : -1] == found.ids  # all but what the template writes behind the last turn
    return tokenizer.decode(whole[: -len(found.ids) - 1]), part(True), part(False)


@pytest.mark.parametrize("template", [PLAIN, MARKED], ids=["by turns", "by marks"])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_assistants_turns_with_their_ends_are_the_students(
    plain_tokenizer: Any, template: str, system: str | None
) -> None:
    prompt, mine, others = told(plain_tokenizer, template, system=system)
    assert prompt == f"<bos>{'' if system is None else '<system>Be brief.</system>'}<user>2+2?</user><assistant>"
    between = "~<tool>4</tool><assistant>"
    assert mine == f"ask<eos>{'|' * len(between)}four<eos>"
    assert others == between


def test_what_others_say_last_is_left_out(plain_tokenizer: Any) -> None:
    said = [*TALK, {"role": "user", "content": "Thanks."}]
    assert told(plain_tokenizer, PLAIN, said) == told(plain_tokenizer, PLAIN)


def test_a_template_that_writes_earlier_turns_otherwise_is_refused(plain_tokenizer: Any) -> None:
    plain_tokenizer.chat_template = FORGETS
    prompts = Prompts(plain_tokenizer, "auto", None)
    with pytest.raises(UserError, match=r"row 7: the chat template writes .* otherwise") as raised:
        transcript(prompts, TALK, EOS, 7)
    assert (raised.value.param, raised.value.code) == ("task.messages_column", "broken_data")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("text", "holds a str; a conversation is a list of messages"),
        ([{"role": "user", "content": "Hi"}], "needs an assistant's turn, and a message before the first"),
        ([{"role": "assistant", "content": "Hi"}], "needs an assistant's turn, and a message before the first"),
        ([{"role": "user"}, TALK[1]], "needs the texts 'role' and 'content', got role"),
    ],
)
def test_a_row_that_is_no_conversation_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as raised:
        messages_of(value, 3)
    assert "row 3" in str(raised.value)


def test_fields_that_a_table_fills_with_nothing_are_left_out() -> None:
    call = {"function": {"name": "calculator", "arguments": {"expression": "1", "other": None}}, "type": None}
    turn = {"role": "assistant", "content": None, "tool_calls": [call], "name": None}
    (_, found) = messages_of([{"role": "user", "content": "?", "tool_calls": None}, turn], 0)
    kept = {"function": {"name": "calculator", "arguments": {"expression": "1"}}}
    assert found == {"role": "assistant", "content": "", "tool_calls": [kept]}


def test_a_file_of_conversations_is_a_task(plain_tokenizer: Any, write_jsonl: Any) -> None:
    plain_tokenizer.chat_template = MARKED
    rows = [{"talk": [{**TALK[0], "content": f"{i}+{i}?"}, *TALK[1:]], "answer": "four"} for i in range(6)]
    rows.append({"talk": [*TALK[:2], {"role": "tool", "content": "x" * 90}, TALK[3]], "answer": "four"})
    path = write_jsonl(rows)
    spec = TaskSpec(dataset=path, messages_column="talk", answer_column="answer", eval_examples=2, max_prompt_tokens=60)
    task = load_task(spec, plain_tokenizer, seed=0)
    assert (len(task.train), len(task.eval)) == (4, 2)
    assert task.warnings == [
        "task.dataset: 1 of 7 rows are left out: 1 with more than 60 tokens between the assistant's"
    ]
    problem = task.train[0]
    assert problem.prompt.endswith("?</user><assistant>")
    assert plain_tokenizer.decode(task.encode(problem)) == problem.prompt
    solution = task.solution(problem)
    assert plain_tokenizer.decode(solution.ids) == "ask<eos>~<tool>4</tool><assistant>four<eos>"
    missing = spec.model_copy(update={"messages_column": "nothing"})
    with pytest.raises(UserError, match="has no column 'nothing'") as raised:
        load_task(missing, plain_tokenizer, seed=0)
    assert raised.value.param == "task.messages_column"


def call(expression: str, name: str = "calculator") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {{"expression": "{expression}"}}}}</tool_call>'


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ("no call", None),
        (f"Let me see. {call('6 * 7')}", "42"),
        (call("6 * 7", name="search"), "error"),
        ("<tool_call>6 * 7</tool_call>", "error"),
        ('<tool_call>["a"]</tool_call>', "error"),
        ('<tool_call>{"name": "calculator", "arguments": {"expression": 5}}</tool_call>', "error"),
    ],
)
def test_a_call_in_a_turn(turn: str, said: str | None) -> None:
    assert chat_tools.result(turn) == said


def test_a_chat_model_is_answered_as_its_template_writes_a_tools_message(plain_tokenizer: Any) -> None:
    plain_tokenizer.chat_template = PLAIN
    asked = chat_tools.environment(Tool(turns=2), Prompts(plain_tokenizer, "auto", None), EOS)
    turn = plain_tokenizer(f"{call('6 * 7')}<eos>", add_special_tokens=False)["input_ids"]
    answer = asked.answer(turn)
    assert answer is not None
    assert plain_tokenizer.decode(answer) == "~<tool>42</tool><assistant>"
    assert asked.asks == set(EOS)
    assert len(answer) <= asked.longest
    assert asked.answer(plain_tokenizer("42<eos>", add_special_tokens=False)["input_ids"]) is None


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "needs a chat template"),
        (PLAIN.replace("{{ m['content'] }}</{{ m['role'] }}>", "!"), "leaves out what a tool says"),
        (PLAIN.replace("<eos>", "<end>"), "ends a turn with '<end>"),
        ("{{ raise_exception('no tools') if messages[-1]['role'] == 'tool' else '' }}", "refuses a tool message"),
    ],
)
def test_a_template_that_has_no_place_for_a_tool_is_refused(
    plain_tokenizer: Any, template: str | None, reason: str
) -> None:
    plain_tokenizer.chat_template = template
    prompts = Prompts(plain_tokenizer, "auto", None)
    with pytest.raises(UserError, match=reason) as raised:
        chat_tools.environment(Tool(), prompts, EOS)
    assert raised.value.param == "task.tool"


def test_the_prompt_lists_the_tool_where_the_template_does(plain_tokenizer: Any, write_jsonl: Any) -> None:
    plain_tokenizer.chat_template = "{% for t in tools or [] %}[{{ t['function']['name'] }}]{% endfor %}" + PLAIN
    path = write_jsonl([{"prompt": f"{i}?"} for i in range(4)])
    spec = TaskSpec.model_validate({"dataset": path, "eval_examples": 1, "tool": {}})
    task = load_task(spec, plain_tokenizer, seed=0)
    assert task.train[0].prompt.startswith("[calculator]<bos><user>")
    assert task.environment is not None
    assert not load_task(TaskSpec(dataset=path), plain_tokenizer, seed=0).train[0].prompt.startswith("[")


def test_conversations_are_rows_from_data_and_a_column_of_a_file() -> None:
    base = {"name": "x", "student": {"model": "a"}, "teacher": {"model": "b"}, "recipe": "gkd-mixed"}
    talk = {"dataset": "x.jsonl", "messages_column": "talk"}
    JobSpec.model_validate({**base, "task": talk})
    with pytest.raises(ValueError, match=r"task\.messages_column: 'talk' names a column of a file"):
        TaskSpec(name="demo/tools", messages_column="talk")
