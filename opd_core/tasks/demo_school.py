"""Teaching the demo models from scratch, on solutions with and without mistakes in them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from opd_core.tasks import word_problems
from opd_core.tasks.courses import COURSES, Course
from opd_core.tasks.demo_recipe import DemoRecipe, School
from opd_core.tasks.demo_tokenizer import make_tokenizer
from opd_core.tasks.environment import Environment
from opd_core.tasks.word_problems import Story

_IGNORED = -100


def build(directory: Path, recipe: DemoRecipe, progress: Callable[[str, int, int], None]) -> None:
    """Teach the models of a set and write a folder for each and ``build.json`` into ``directory``.

    Each is taught on a thread of its own, with one torch thread: on two cores that is faster than two torch threads
    for one after the other, and the weights do not depend on the number of cores. ``progress`` is called on the
    caller's thread; what it raises stops the build.
    """
    schools, course = recipe.schools, COURSES[recipe.course]
    tokenizer = make_tokenizer(course.writing.words)
    fresh = {name: _fresh_model(school, tokenizer) for name, school in schools.items()}
    total = sum(school.batches for school in schools.values())
    ticks: SimpleQueue[bool] = SimpleQueue()  # True: one more batch; False: one more model (or failure)
    stop = Event()

    def work(name: str) -> dict[str, Any]:
        def tick() -> None:
            if stop.is_set():
                raise CancelledError
            ticks.put(True)

        try:
            return _make(directory / name, fresh[name], schools[name], course, recipe.examined, tick)
        finally:
            ticks.put(False)

    with _one_torch_thread(), ThreadPoolExecutor(len(schools), "demo-school") as pool:
        futures = {name: pool.submit(work, name) for name in schools}
        done, running = 0, len(schools)
        try:
            while running:
                if ticks.get():
                    done += 1
                    progress("teaching the demo models", done, total)
                else:
                    running -= 1
        except BaseException:
            stop.set()
            raise
        report = {name: future.result() for name, future in futures.items()}
    (directory / "build.json").write_text(json.dumps(report, indent=2))


def _make(
    directory: Path,
    model: LlamaForCausalLM,
    school: School,
    course: Course,
    examined: int,
    tick: Callable[[], None],
) -> dict[str, Any]:
    """Teach, examine and save one model; returns its line of ``build.json``."""
    tokenizer = make_tokenizer(course.writing.words)
    started = time.monotonic()
    teach(model, school, course, tokenizer, tick)
    taught_s = time.monotonic() - started
    accuracy = examine(model, course, tokenizer, examined)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return {
        "exact_match": accuracy,
        "problems": examined,
        "parameters": model.num_parameters(),
        "seconds": round(taught_s, 1),
    }


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """New threads inherit the number that is set here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fresh_model(school: School, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(school.seed)
        return LlamaForCausalLM(_config(school, tokenizer))


def teach(
    model: LlamaForCausalLM,
    school: School,
    course: Course,
    tokenizer: PreTrainedTokenizerBase,
    tick: Callable[[], None],
) -> None:
    """Train with cross-entropy on the right next tokens; ``tick()`` after every batch."""
    generator = random.Random(school.seed)  # noqa: S311
    optimizer = torch.optim.AdamW(model.parameters(), lr=school.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / school.warmup, 1.0 - i / school.batches)
    )
    lessons = word_problems.stories(generator, held_out=False, level=course.level)
    model.train()
    for batch in range(school.batches):
        now = school.at(batch / school.batches)
        pieces = _batch(islice(lessons, school.batch_size), tokenizer, now, course, generator)
        labelled = sum(int((labels != _IGNORED).sum()) for _, labels in pieces)
        optimizer.zero_grad()
        for ids, labels in pieces:
            logits = model(input_ids=ids, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="sum"
            )
            (loss / labelled).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        tick()
    model.eval()


@torch.no_grad()
def examine(model: LlamaForCausalLM, course: Course, tokenizer: PreTrainedTokenizerBase, problems: int) -> float:
    """Greedy exact match on held-out problems."""
    stories = word_problems.distinct_stories(problems, seed="examination", held_out=True, level=course.level)
    writing = course.writing
    environment = None if writing.environment is None else writing.environment(tokenizer, course.level.changes[1])
    prompts = tokenizer([story.prompt for story in stories])["input_ids"]
    written: list[list[int]] = [[] for _ in stories]
    rows = list(range(problems))
    while rows:  # once, and once more for those that were answered
        stretches = _continued(model, [prompts[i] + written[i] for i in rows], tokenizer, course.longest, environment)
        answers = [environment.answer(s) if environment and s[-1] in environment.asks else None for s in stretches]
        for i, stretch, answer in zip(rows, stretches, answers, strict=True):
            written[i] += [*stretch, *(answer or [])]
        rows = [i for i, answer in zip(rows, answers, strict=True) if answer and len(written[i]) < 2 * course.longest]
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    right = [writing.verify(text, writing.answer(story)) for text, story in zip(texts, stories, strict=True)]
    return sum(right) / problems


def _continued(
    model: LlamaForCausalLM,
    starts: list[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    environment: Environment | None,
) -> list[list[int]]:
    """What the model writes greedily after each of these ids, up to its end or to where the environment is asked."""
    stops = [tokenizer.eos_token_id, *sorted(environment.asks if environment else [])]
    batch = tokenizer.pad({"input_ids": starts}, padding_side="left", return_tensors="pt")
    written = model.generate(**batch, max_new_tokens=longest, do_sample=False, eos_token_id=stops)
    found = []
    for row in written[:, batch["input_ids"].shape[1] :].tolist():
        end = next((place for place, token in enumerate(row) if token in stops), len(row) - 1)
        found.append(row[: end + 1])
    return found


def _config(school: School, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=school.hidden,
        intermediate_size=school.intermediate,
        num_hidden_layers=school.layers,
        num_attention_heads=school.heads,
        num_key_value_heads=school.heads,
        max_position_embeddings=128,
        # Texts are some 50 tokens long: slower rotations would tell no two positions apart.
        rope_parameters={"rope_type": "default", "rope_theta": school.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _batch(
    stories: Iterator[Story],
    tokenizer: PreTrainedTokenizerBase,
    school: School,
    course: Course,
    generator: random.Random,
) -> list[tuple[Tensor, Tensor]]:
    """One batch in pieces of similar length (padding would be a third of the work otherwise).

    Each piece is ids [B, T] (padded on the right) and labels [B, T]: the right next token on answer positions.
    """
    rows = []
    for story in stories:
        written, taught = course.lesson(story, school, generator)
        prompt = tokenizer(story.prompt)["input_ids"]
        # The last written token is an end, after which nothing follows: it is a label only.
        ids = prompt + tokenizer.convert_tokens_to_ids(written[:-1])
        labels = [_IGNORED if word is None else tokenizer.convert_tokens_to_ids(word) for word in taught]
        rows.append((ids, [_IGNORED] * (len(prompt) - 1) + labels))
    rows.sort(key=lambda row: len(row[0]))
    middle = len(rows) // 2
    return [_pad(piece, tokenizer.pad_token_id) for piece in (rows[:middle], rows[middle:]) if piece]


def _pad(rows: list[tuple[list[int], list[int]]], pad_id: int) -> tuple[Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad_id] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [_IGNORED] * (longest - len(labels)) for _, labels in rows])
    return ids, labels
