"""Whole runs in which not every token is the student's: conversations of the data, and a tool that answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from opd_core.rollout import Rollouts
from opd_core.runs import records
from opd_core.runs.artifacts import RunFiles
from opd_core.spec import JobSpec, UserError
from opd_core.spec.rollout import Replay as ReplaySpec
from opd_core.tasks import Problem, tools
from opd_core.tasks.demo_tokenizer import make_tokenizer
from opd_core.training.replay import Replay
from opd_core.training.run import train
from opd_core.training.states import Written
from tests.tiny import write_tiny_model
from tests.tokenizers import other_model

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}</end>"
    "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with one chat template, and a file of conversations with a tool."""
    root = tmp_path_factory.mktemp("chat")
    for name, width in (("student", 32), ("teacher", 48)):
        folder = other_model(root / name, corpus=["12 + 3 = 15"] * 3, tokens=262, width=width)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder)
    rows = [
        {
            "talk": [
                {"role": "user", "content": f"{a}+{a}?"},
                {"role": "assistant", "content": "ask"},
                {"role": "tool", "content": str(2 * a)},
                {"role": "assistant", "content": f"it is {2 * a}"},
            ],
            "answer": f"it is {2 * a}",
        }
        for a in range(20)
    ]
    (root / "talks.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root


def spec_of(root: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> JobSpec:
    for variable in ("OPD_MODEL_ROOTS", "OPD_DATA_ROOTS"):
        monkeypatch.setenv(variable, str(root))
    base = {
        "name": "turns",
        "student": {"model": str(root / "student")},
        "teacher": {"model": str(root / "teacher")},
        "optimizer": {"lr": 1e-3, "warmup_steps": 1},
        "schedule": {"steps": 2, "evaluate_every": 0, "checkpoint_every": 0},
        "telemetry": {"sequences_per_step": 16, "top_k": 4, "probe_states": 0, "recovery_problems": 4},
    }
    return JobSpec.model_validate({**base, **sections})


def rows_of(out: Path, step: int = 1) -> list[dict[str, Any]]:
    return records.read_step(RunFiles(out), step)


def test_conversations_of_the_data_are_rows_with_holes(chat: Path, tmp_path: Path, monkeypatch: Any) -> None:
    task = {"dataset": str(chat / "talks.jsonl"), "messages_column": "talk", "answer_column": "answer"}
    spec = spec_of(
        chat,
        monkeypatch,
        task={**task, "eval_examples": 4},
        recipe="gkd-mixed",
        rollout={"prompts_per_step": 8, "max_new_tokens": 24, "written_by": {"student": 0.5, "data": 0.5}},
    )
    said: list[dict[str, Any]] = []
    report = train(spec, tmp_path / "out", emit=said.append)
    tokenizer = AutoTokenizer.from_pretrained(chat / "student")
    told = [row for row in rows_of(tmp_path / "out") if row["origin"] == "data"]
    assert told
    for row in told:
        assert tokenizer.decode(row["token_ids"]).startswith("ask</end>it is")
        (place,) = [at for at, reply in enumerate(row["replies"]) if reply]
        assert tokenizer.decode(row["token_ids"][: place + 1]) == "ask</end>"
        said_between = tokenizer.decode(row["replies"][place])
        assert said_between.startswith("<tool>")
        assert said_between.endswith("<assistant>")
        assert row["length"] == len(row["token_ids"]) == len(row["log_ratio"])
        assert not row["truncated"]
        assert row["correct"]  # the last turn is the answer
        assert row["completion"].startswith("ask<tool>")
    assert all(row["replies"] is None for row in rows_of(tmp_path / "out") if row["origin"] == "student")
    data = [m["values"]["rows_data"] for m in said if m["type"] == "metrics" and "rows_data" in m["values"]]
    assert all(0 < share < 1 for share in data)
    own = sum(row["length"] for step in (1, 2) for row in rows_of(tmp_path / "out", step) if row["origin"] == "student")
    assert report["budget"]["student_tokens"] == own


def test_a_beginning_of_a_conversation_ends_before_an_action(chat: Path, tmp_path: Path, monkeypatch: Any) -> None:
    spec = spec_of(
        chat,
        monkeypatch,
        task={"dataset": str(chat / "talks.jsonl"), "messages_column": "talk", "eval_examples": 0},
        recipe="forward-kl",
        rollout={"prompts_per_step": 4, "max_new_tokens": 16, "prefix": {"of": "data", "share": 0.4, "until": 1.0}},
    )
    train(spec, tmp_path / "out", emit=lambda _: None)
    prompts = [row["prompt"] for row in rows_of(tmp_path / "out")]
    assert prompts
    assert all(re.search(r"<assistant> ask<tool>\d+<assistant>i?$", prompt) for prompt in prompts), prompts


def test_a_chat_without_a_template_has_no_turns(chat: Path, tmp_path: Path, monkeypatch: Any) -> None:
    task = {"dataset": str(chat / "talks.jsonl"), "messages_column": "talk", "template": "plain", "eval_examples": 0}
    with pytest.raises(UserError, match="need a chat template"):
        train(spec_of(chat, monkeypatch, task=task), tmp_path / "out", emit=lambda _: None)


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random models in the words of demo/tools."""
    root = tmp_path_factory.mktemp("callers")
    for name, width in (("student", 32), ("teacher", 48)):
        write_tiny_model(root / name, make_tokenizer(tools.WRITING.words), width=width, tied=False)
    return root


@pytest.mark.parametrize(
    ("recipe", "rollout"),
    [
        ("vopd", {"replay": {"share": 0.5, "max_age": 4}}),
        ("gkd-mixed", {"written_by": {"student": 0.4, "teacher": 0.3, "data": 0.3}}),
        ("forward-kl", {"teacher_mix": 0.5, "prefix": {"of": "teacher", "share": 0.5, "until": 1.0}, "cache": "fixed"}),
    ],
)
def test_a_tool_answers_whoever_writes(
    recipe: str, rollout: dict[str, Any], callers: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    spec = spec_of(
        callers,
        monkeypatch,
        task={"name": tools.TASK, "eval_examples": 6, "ood_examples": 2},
        recipe=recipe,
        rollout={"prompts_per_step": 12, "max_new_tokens": 20, **rollout},
    )
    report = train(spec, tmp_path / "out", emit=lambda _: None)
    call = make_tokenizer(tools.WRITING.words).convert_tokens_to_ids(tools.CALL)
    answered = 0
    for row in (row for step in (1, 2) for row in rows_of(tmp_path / "out", step)):
        for token, reply in zip(row["token_ids"], row["replies"] or [None] * row["length"], strict=True):
            assert reply is None or (token == call and len(reply) == 2)
            answered += reply is not None
        assert row["length"] <= 20
    assert answered > 3
    assert report["accuracy"]["teacher"] is not None


@pytest.mark.parametrize("acted", [[True, False, True], [True, True, True]])
def test_a_replayed_row_keeps_its_holes_in_a_checkpoint(acted: list[bool]) -> None:
    one, none = torch.ones((1, 3), dtype=torch.bool), torch.zeros(1, dtype=torch.long)
    rollouts = Rollouts(
        prompts=torch.tensor([[5]]),
        prompt_mask=one[:, :1],
        tokens=torch.tensor([[6, 7, 8]]),
        mask=torch.tensor([acted]),
        behaviour_logp=torch.zeros((1, 3)),
        truncated=~one[:, 0],
        present=one,
    )
    problem = Problem(0, "p", None)
    kept = Replay(ReplaySpec(), [problem], 0)
    kept.keep(Written([problem], rollouts, none, none, none, [[]]), step=1)
    state = kept.state()
    if all(acted):  # a checkpoint from before there were others
        del state["present"]
    again = Replay(ReplaySpec(), [problem], 0)
    again.restore(state, torch.device("cpu"))
    drawn = again.draw(1, seed=0, step=2)
    assert drawn is not None
    assert drawn.rollouts.mask.tolist() == [acted]
    assert drawn.rollouts.present.tolist() == [[True] * 3]
