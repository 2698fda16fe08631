"""Completion tokens per second of writing and of scoring, ours beside plain transformers on the same work.

    python -m benchmarks.scoring [--rounds 5] [--pairs demo 30m] [--threads 2]

Scoring: the teacher's log-probability of every token that the student wrote. Ours: sorted by length, in batches of a
budget of padded tokens, a prompt once for all its samples, the head on completion rows only, chunk by chunk.
Transformers: ``model(ids)`` over the sequences as they come, in padded batches of the same budget, each padded to its
own longest, logits of every position.

Writing: the student completes prompts. Ours: ``write``, from which finished rows are dropped and which keeps the
probability of each token. Transformers: ``generate`` on the whole batch, which keeps none. Equal: sampled, and all cut
at the same length. Natural: greedy to their ends, so that both write the same tokens (the demo's pair only: random
weights never come to an end).

The arms take turns in one process per pair, on a CPU in float32; medians over the rounds, ratios are medians of the
ratios within a round, transformers / ours. The arms must agree on the log-probabilities, and on how many tokens they
wrote. Processor time is what to read on a machine that is busy with other things. Memory is the highest that is
resident while an arm works, minus that just before. The share of the roofline (roofline.py) is what this machine's
matrix products and memory, measured in the same process, would need for the same tokens over what the arm took.
``read_again`` is the share of the scored sequences that is a prompt which another sample of it has too.

Needs Linux (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import random_models, roofline
from benchmarks.machine import describe_machine, keep
from benchmarks.meters import OnCpu

ARMS = ("ours", "transformers")
_BUDGET = 16_384  # tokens of a batch, padding included
_ALIKE = 1e-3  # nats of a sequence: both must have found the same
Work = Callable[[], Any]


@dataclass(frozen=True)
class Pair:
    """Two models and the work of a round. ``sizes`` go to ``random_models``; without them it is the demo's pair."""

    sizes: dict[str, dict[str, Any]] | None
    prompts: int
    samples: int = 4
    new_tokens: int = 36


PAIRS = {"demo": Pair(None, prompts=64), "30m": Pair(random_models.THIRTY_MILLION, prompts=16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--measure", choices=PAIRS, help=argparse.SUPPRESS)  # a process of the measurement itself
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(PAIRS[arguments.measure], arguments.rounds)))
        return
    machine = describe_machine()
    found = {name: _in_a_process(name, arguments) for name in arguments.pairs}
    print(as_table(found))
    command = " ".join(["python -m benchmarks.scoring", *sys.argv[1:]])
    keep("scoring", command, {"threads": arguments.threads, "pairs": found}, machine)


def _in_a_process(pair: str, arguments: argparse.Namespace) -> dict[str, Any]:
    threads = str(arguments.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "GOMP_SPINCOUNT": "0"}
    command = [sys.executable, "-m", "benchmarks.scoring", "--rounds", str(arguments.rounds), "--measure", pair]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found), flush=True)
    return found


def measure(pair: Pair, rounds: int) -> dict[str, Any]:
    """One pair, in this process."""
    import torch

    from opd_core.rollout import uniform_noise, write

    student, teacher, prompts = _world(pair)
    peak = roofline.measure(rounds)
    noise = uniform_noise(0, 1, [divmod(row, pair.samples) for row in range(len(prompts))], pair.new_tokens)
    with torch.inference_mode():
        rollouts = write(student, prompts, max_new_tokens=pair.new_tokens, noise=noise)
        read, wrote = (mask.sum(1).tolist() for mask in (rollouts.prompt_mask, rollouts.mask))
        scoring: dict[str, Work] = {
            "ours": lambda: _score(teacher, rollouts),
            "transformers": lambda: _plain_score(teacher, rollouts),
        }
        one, other = (arm() for arm in scoring.values())
        if float((one - other).abs().max()) > _ALIKE:
            raise SystemExit(f"the arms disagree on log-probabilities: by {float((one - other).abs().max())}")
        ideal = roofline.Shape.of(teacher).scoring_s(read, wrote, _BUDGET, peak)
        works = {"scoring": _compare(scoring, rounds, sum(wrote), ideal)}
        again = 1 - 1 / pair.samples
        works["scoring"]["read_again"] = round(again * sum(read) / (sum(read) + sum(wrote)), 3)

        written = Shaped(roofline.Shape.of(student), read, peak)
        works["writing, equal"] = written.compare(_writers(student, prompts, noise, pair.new_tokens), rounds)
        if pair.sizes is None:
            works["writing, natural"] = written.compare(_writers(student, prompts, None, pair.new_tokens), rounds)
    return {
        "rows": len(prompts),
        "peak_gflops": round(peak.flops / 1e9, 1),
        "peak_gb_per_s": round(peak.bandwidth / 1e9, 1),
        "parameters": {"student": student.flop_parameters, "teacher": teacher.flop_parameters},
        "works": works,
    }


def _world(pair: Pair) -> tuple[Any, Any, list[list[int]]]:
    """Student, teacher, and prompts of the demo's task: each of them ``samples`` times in a row."""
    from opd_core.models import load_model
    from opd_core.spec import ModelSpec, TaskSpec
    from opd_core.tasks import load_task

    with tempfile.TemporaryDirectory(prefix="opd-scoring-") as folder:
        names = {name: f"demo/{name}" for name in ("student", "teacher")}
        if pair.sizes is not None:
            names = random_models.make(pair.sizes, Path(folder))
            os.environ["OPD_MODEL_ROOTS"] = folder
        student, teacher = (
            load_model(ModelSpec(model=names[role]), trainable=False, role=role) for role in ("student", "teacher")
        )
    task = load_task(TaskSpec(name="demo/word-problems", eval_examples=0), student.tokenizer, seed=0)
    chosen = [task.encode(problem) for problem in task.train[: pair.prompts]]
    return student, teacher, [prompt for prompt in chosen for _ in range(pair.samples)]


def _score(teacher: Any, rollouts: Any) -> Any:
    """[B] log-probability of each completion, as a step scores them."""
    import torch

    from opd_core.objective.targets import chunks, scan_budget
    from opd_core.rollout import by_length
    from opd_core.teachers.local import score_with_ends

    order = by_length(rollouts)
    ordered = rollouts.reorder(order)
    rows = score_with_ends(teacher, ordered, micro_tokens=_BUDGET).rows
    tokens = ordered.tokens[ordered.mask][:, None]
    budget = scan_budget(tokens.device)
    found = [
        rows[part].log_probs(1.0).gather(1, tokens[part])
        for part in chunks(len(rows), teacher.vocab_size, budget=budget)
    ]
    of_tokens = torch.zeros(ordered.mask.shape).masked_scatter(ordered.mask, torch.cat(found)[:, 0])
    return torch.empty(len(order)).index_copy(0, order, of_tokens.sum(1))


def _plain_score(teacher: Any, rollouts: Any) -> Any:
    """The same with nothing but the model's own forward."""
    import torch

    from opd_core.models import position_ids

    width = rollouts.prompts.shape[1] + rollouts.tokens.shape[1]
    rows = max(1, _BUDGET // width)
    found = []
    for start in range(0, len(rollouts), rows):
        part = rollouts.select(slice(start, start + rows))
        mask = torch.cat([part.prompt_mask, part.mask], 1)
        ids = torch.cat([part.prompts, part.tokens], 1)
        output = teacher.model(ids, attention_mask=mask.long(), position_ids=position_ids(mask), use_cache=False)
        logp = output.logits[:, part.prompts.shape[1] - 1 : -1, : teacher.vocab_size].float().log_softmax(-1)
        of_tokens = logp.gather(2, part.tokens[:, :, None])[:, :, 0]
        found.append((of_tokens * part.mask).sum(1))
    return torch.cat(found)


def _writers(student: Any, prompts: list[list[int]], noise: Any, new_tokens: int) -> dict[str, Work]:
    """Both ways of writing, as the lengths [B] of what was written. With noise nothing ends before ``new_tokens``."""
    import torch
    from transformers import GenerationConfig

    from opd_core.rollout import write
    from opd_core.rollout.writer import left_padded

    ids, mask = left_padded(prompts, student.pad_id)
    endless = replace(student, eos_ids=(-1,)) if noise is not None else student
    settings = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=noise is not None,
        top_k=0 if noise is not None else None,
        pad_token_id=student.pad_id,
        eos_token_id=None if noise is not None else list(student.eos_ids),
    )

    def ours() -> Any:
        return write(endless, prompts, max_new_tokens=new_tokens, noise=noise).lengths

    def plain() -> Any:
        out = student.model.generate(ids, attention_mask=mask.long(), generation_config=settings)[:, ids.shape[1] :]
        ends = torch.isin(out, torch.tensor(endless.eos_ids))
        return torch.where(ends.any(1), ends.int().argmax(1) + 1, out.shape[1])

    return {"ours": ours, "transformers": plain}


@dataclass(frozen=True)
class Shaped:
    """A student with its prompts, and what it could do at most."""

    shape: roofline.Shape
    read: list[int]
    peak: roofline.Peak

    def compare(self, arms: dict[str, Work], rounds: int) -> dict[str, Any]:
        lengths = {name: arm().tolist() for name, arm in arms.items()}
        tokens = {name: sum(of) for name, of in lengths.items()}
        if abs(tokens["ours"] - tokens["transformers"]) > 0.01 * tokens["ours"]:
            raise SystemExit(f"the arms did not write the same: {tokens}")
        ideal = self.shape.writing_s(self.read, lengths["ours"], self.peak)
        return _compare(arms, rounds, tokens["ours"], ideal)


def _compare(arms: dict[str, Work], rounds: int, tokens: int, ideal_s: float) -> dict[str, Any]:
    """Seconds and extra GiB of each arm in each round, and what they come to. Both arms have run before."""
    meter = OnCpu()
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    processor: dict[str, list[float]] = {name: [] for name in ARMS}
    extra: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(rounds):
        for name in ARMS if number % 2 == 0 else ARMS[::-1]:
            before = meter.reset()
            started, spent = time.perf_counter(), time.process_time()
            arms[name]()
            seconds[name].append(round(time.perf_counter() - started, 4))
            processor[name].append(round(time.process_time() - spent, 4))
            extra[name].append(round(meter.peak() - before, 3))
    usual = {name: statistics.median(of) for name, of in seconds.items()}
    return {
        "tokens": tokens,
        "tokens_per_s": {name: round(tokens / usual[name]) for name in ARMS},
        "to_transformers": _ratio(seconds),
        "processor_to_transformers": _ratio(processor),
        "of_roofline": {name: round(ideal_s / usual[name], 3) for name in ARMS},
        "extra_gib": {name: statistics.median(extra[name]) for name in ARMS},
        "seconds": seconds,
        "processor_seconds": processor,
    }


def _ratio(spent: dict[str, list[float]]) -> float:
    pairs = zip(spent["ours"], spent["transformers"], strict=True)
    return round(statistics.median(theirs / ours for ours, theirs in pairs), 2)


def as_table(pairs: dict[str, Any]) -> str:
    """Markdown: one line for each pair and work."""
    lines = [
        "| Pair | Work | Tokens/s, ours | transformers | ratio | Processor time, ratio | Of the roofline, ours "
        "| transformers | Extra GiB, ours | transformers |",
        "|---" * 10 + "|",
    ]
    for pair, found in pairs.items():
        for work, one in found["works"].items():
            speed = [f"{one['tokens_per_s'][arm]:,}" for arm in ARMS]
            share = [f"{one['of_roofline'][arm]:.0%}" for arm in ARMS]
            gib = [f"{one['extra_gib'][arm]:.2f}" for arm in ARMS]
            ratios = [f"{one[name]:.2f}" for name in ("to_transformers", "processor_to_transformers")]
            lines.append(f"| {' | '.join([pair, work, *speed, *ratios, *share, *gib])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
