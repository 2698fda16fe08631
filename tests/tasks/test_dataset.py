"""Files of the user's: what is read, what is dropped and counted, what is refused and how."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import load_task

ROWS = [{"question": f"What is {i} + 1 ?", "result": str(i + 1), "note": None} for i in range(40)]


def spec(path: str | Path, **fields: object) -> TaskSpec:
    named = {"prompt_column": "question", "answer_column": "result", "eval_examples": 10} | fields
    return TaskSpec(dataset=str(path), **named)


def refusal(task: TaskSpec, tokenizer) -> UserError:
    with pytest.raises(UserError) as caught:
        load_task(task, tokenizer, seed=0)
    assert caught.value.param is not None
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.parquet", "data.csv", "a[b]*?.jsonl"])
def test_every_format_gives_the_same_task(name, data_root, plain_tokenizer) -> None:
    file = data_root / name
    table = datasets.Dataset.from_list([{key: row[key] for key in ("question", "result")} for row in ROWS])
    if name.endswith(".json"):
        file.write_text(json.dumps(ROWS))
    elif name.endswith(".jsonl"):
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif name.endswith(".parquet"):
        table.to_parquet(file)
    else:
        table.to_csv(file)
    task = load_task(spec(file), plain_tokenizer, seed=3)
    assert (len(task.train), len(task.eval), task.warnings) == (30, 10, [])
    problem = task.train[0]
    assert problem.prompt == ROWS[problem.id]["question"]
    assert problem.answer == ROWS[problem.id]["result"]
    assert task.verify is not None
    assert task.verify(str(problem.answer), str(problem.answer))
    assert plain_tokenizer.decode(task.encode(problem)) == "<bos>" + problem.prompt


def test_nothing_is_cached(write_jsonl, plain_tokenizer, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    path = write_jsonl(ROWS)
    first = load_task(spec(path), plain_tokenizer, seed=0)
    write_jsonl([row | {"question": row["question"].replace("What", "Wat")} for row in ROWS])
    second = load_task(spec(path), plain_tokenizer, seed=0)
    assert first.train[0].prompt.startswith("What")
    assert second.train[0].prompt.startswith("Wat ")
    assert not (tmp_path / "cache").exists()


def test_missing_column_lists_those_there_are(write_jsonl, plain_tokenizer) -> None:
    path = write_jsonl(ROWS)
    error = refusal(spec(path, prompt_column="prompt"), plain_tokenizer)
    assert error.code == "missing_column"
    assert error.param == "task.prompt_column"
    assert "'prompt'" in error.message
    assert "question, result, note" in error.message
    assert refusal(spec(path, answer_column="gold"), plain_tokenizer).param == "task.answer_column"


def test_no_answer_column_means_nothing_to_verify(write_jsonl, plain_tokenizer) -> None:
    task = load_task(spec(write_jsonl(ROWS), answer_column=None), plain_tokenizer, seed=0)
    assert task.verify is None
    assert {problem.answer for problem in task.train} == {None}


@pytest.mark.parametrize("content", ["", "\n", "[]"])
def test_empty_files(content, data_root, plain_tokenizer) -> None:
    file = data_root / "data.json"
    file.write_text(content)
    assert refusal(spec(file), plain_tokenizer).param == "task.dataset"


def test_broken_files(data_root, plain_tokenizer) -> None:
    for name in ("data.json", "data.parquet"):
        (data_root / name).write_text('{"question": ')
        assert refusal(spec(data_root / name), plain_tokenizer).code == "broken_data"


def test_unusable_rows_are_left_out_and_counted(write_jsonl, plain_tokenizer) -> None:
    bad = [
        {"question": None, "result": "1"},
        {"question": "  ", "result": "1"},
        {"question": "no answer", "result": None},
        {"question": "x" * 100, "result": "1"},
    ]
    task = load_task(spec(write_jsonl([*bad, *ROWS]), max_prompt_tokens=50), plain_tokenizer, seed=0)
    assert len(task.train) + len(task.eval) == 40
    (warning,) = task.warnings
    assert warning.startswith("task.dataset: 4 of 44 rows are left out")
    assert "2 with an empty 'question'" in warning
    assert "1 with no 'result'" in warning
    assert "1 with a prompt of more than 50 tokens" in warning
    assert all(len(task.encode(problem)) <= 50 for problem in task.train)


def test_nothing_usable_is_an_error(write_jsonl, plain_tokenizer) -> None:
    path = write_jsonl(ROWS)
    error = refusal(spec(path, max_prompt_tokens=5), plain_tokenizer)
    assert error.param == "task.max_prompt_tokens"
    assert "40 with a prompt of more than 5 tokens" in error.message
    assert refusal(spec(write_jsonl([{"question": None, "result": "1"}])), plain_tokenizer).code == "empty_data"


def test_prompts_that_are_no_prompts(write_jsonl, plain_tokenizer) -> None:
    path = write_jsonl([{"question": 5, "result": "5"}])
    assert "row 0 holds a int" in refusal(spec(path), plain_tokenizer).message


def test_last_number_needs_numbers(write_jsonl, plain_tokenizer) -> None:
    path = write_jsonl([*ROWS, {"question": "who ?", "result": "Ann"}])
    error = refusal(spec(path, verifier={"kind": "last_number"}), plain_tokenizer)
    assert "row 40" in error.message


def test_numbers_as_answers(write_jsonl, plain_tokenizer) -> None:
    path = write_jsonl([{"question": f"{i} ?", "result": i} for i in range(4)])
    task = load_task(spec(path), plain_tokenizer, seed=0)
    assert {problem.answer for problem in (*task.train, *task.eval)} == {"0", "1", "2", "3"}


def test_paths_stay_below_the_roots(write_jsonl, plain_tokenizer, tmp_path, monkeypatch) -> None:
    path = write_jsonl(ROWS)
    (tmp_path / "inside").mkdir()
    monkeypatch.setenv("OPD_DATA_ROOTS", str(tmp_path / "inside"))
    assert "OPD_DATA_ROOTS" in refusal(spec(path), plain_tokenizer).message
    (tmp_path / "inside" / "link.jsonl").symlink_to(path)
    assert refusal(spec(tmp_path / "inside" / "link.jsonl"), plain_tokenizer).code == "path_not_allowed"
    monkeypatch.delenv("OPD_DATA_ROOTS")
    assert "not set" in refusal(spec(path), plain_tokenizer).message


@pytest.mark.parametrize("path", ["owner/dataset", "data.jsonl", "hf://datasets/owner/name/x.csv", "https://x/y.csv"])
def test_only_local_absolute_files(path, data_root, plain_tokenizer) -> None:
    assert "absolute path" in refusal(spec(path), plain_tokenizer).message


def test_other_formats_and_missing_files(data_root, plain_tokenizer) -> None:
    assert refusal(spec(data_root / "data.py"), plain_tokenizer).code == "unknown_format"
    assert refusal(spec(data_root / "data.csv"), plain_tokenizer).code == "missing_file"
    (data_root / "folder.json").mkdir()
    assert refusal(spec(data_root / "folder.json"), plain_tokenizer).code == "missing_file"


def test_a_separate_evaluation_file(write_jsonl, plain_tokenizer) -> None:
    train, held_out = write_jsonl(ROWS[:20]), write_jsonl(ROWS[15:], "eval.jsonl")
    task = load_task(spec(train, eval_dataset=held_out, eval_examples=25), plain_tokenizer, seed=0)
    assert (len(task.train), len(task.eval)) == (20, 25)
    assert len({problem.id for problem in (*task.train, *task.eval)}) == 45
    assert task.warnings == ["task.eval_dataset: 5 of 25 evaluation prompts are also trained on"]
    fewer = load_task(spec(train, eval_dataset=held_out, eval_examples=6), plain_tokenizer, seed=0)
    assert len(fewer.eval) == 6


def test_ids_beyond_the_shared_vocabulary_are_refused(write_jsonl, plain_tokenizer) -> None:
    with pytest.raises(UserError, match="the teacher does not have"):
        load_task(spec(write_jsonl(ROWS)), plain_tokenizer, seed=0, vocab_size=20)


def test_unknown_task(plain_tokenizer) -> None:
    assert "demo/word-problems" in refusal(TaskSpec(name="demo/nothing"), plain_tokenizer).message
