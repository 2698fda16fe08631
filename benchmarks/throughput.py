"""Completion tokens per second of whole steps, ours beside TRL's DistillationTrainer on the same work.

    python -m benchmarks.throughput [--rounds 5] [--steps 20] [--pair demo|30m|qwen3] [--threads 2]

Same models, prompts, batch, optimizer and divergence (forward KL). Each measurement is a process of its own, the
systems interleaved round by round: ours with telemetry off and on, TRL. Two kinds of length: natural, as the student
writes them, and equal, all cut before any answer ends. The learning rate is so small that the student stays what it
is, so that every step is the same work.

demo and 30m are for a CPU: float32, TRL without gradient checkpointing, which favours it here. qwen3 needs a GPU: the
shapes of Qwen3-0.6B and Qwen3-4B with random weights and a vocabulary of 151,669, so that no answer ends before its
cap; ours in its default precision there (bfloat16 compute over float32 weights of the student, bfloat16 teacher), TRL
in its own (a bfloat16 student, as its loader gives one for these checkpoints, gradient checkpointing).

Phases: ours as the trainer counts them. TRL's are timed around its own functions: rollout = its generation, teacher =
the teacher's trunk; everything else, with both heads, is update. Memory is the peak of the resident process, or of
what tensors hold on the GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import random_models
from benchmarks.machine import describe_machine, keep

SYSTEMS = ("ours, telemetry on", "trl", "ours, telemetry off")
LENGTHS = ("natural", "equal")
_SHORTEST = 9  # tokens: no solution of the demo task is that short


@dataclass(frozen=True)
class Pair:
    """Two models and the work of a step. ``sizes`` go to ``random_models``; without them it is the demo's pair."""

    sizes: dict[str, dict[str, Any]] | None = None
    lengths: tuple[str, ...] = LENGTHS
    prompts: int = 64
    new_tokens: int = 36
    warm_up: int = 3
    micro_tokens: int | str = "auto"
    on_gpu: bool = False


PAIRS = {
    "demo": Pair(),
    "30m": Pair(sizes=random_models.THIRTY_MILLION),
    "qwen3": Pair(
        sizes=random_models.QWEN3,
        lengths=("equal",),
        new_tokens=512,
        warm_up=1,
        micro_tokens=8192,
        on_gpu=True,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pair", choices=PAIRS, default="demo")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # a process of the measurement itself
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(json.loads(arguments.measure))))
        return
    pair = PAIRS[arguments.pair]
    if arguments.steps < pair.warm_up + 2:
        parser.error(f"--steps: {arguments.steps} leaves nothing to measure behind {pair.warm_up} steps of warm-up")
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="opd-throughput-") as folder:
        models = {name: f"demo/{name}" for name in ("student", "teacher")}
        if pair.sizes is not None:
            models = random_models.make(pair.sizes, Path(folder))
        runs: dict[str, dict[str, list[dict[str, Any]]]] = {
            length: {system: [] for system in SYSTEMS} for length in pair.lengths
        }
        for number in range(arguments.rounds):
            for length in pair.lengths:
                for system in SYSTEMS if number % 2 == 0 else reversed(SYSTEMS):
                    task = {"system": system, "length": length, "seed": number, "models": models}
                    task |= {"steps": arguments.steps, "pair": arguments.pair}
                    found = _in_a_process(task, folder, arguments.threads)
                    runs[length][system].append(found)
                    print(f"round {number + 1}, {length}, {system}: {json.dumps(found)}", flush=True)
    figures = {"pair": arguments.pair, "threads": arguments.threads, "lengths": summarise(runs), "runs": runs}
    print(as_table(figures["lengths"]))
    command = " ".join(["python -m benchmarks.throughput", *sys.argv[1:]])
    keep(f"throughput-{arguments.pair}", command, figures, machine)


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """One system, in this process."""
    from opd_core.recipes import resolve
    from opd_core.spec import JobSpec

    pair = PAIRS[task["pair"]]
    cut = task["length"] == "equal" and not pair.on_gpu
    spec = resolve(
        JobSpec.model_validate(
            {
                "name": "throughput",
                "student": {"model": task["models"]["student"]},
                "teacher": {"model": task["models"]["teacher"]},
                "task": {"name": "demo/word-problems", "eval_examples": 0},
                "recipe": "forward-kl",
                "rollout": {
                    "prompts_per_step": pair.prompts,
                    "max_new_tokens": _SHORTEST if cut else pair.new_tokens,
                },
                "batching": {"micro_tokens": pair.micro_tokens},
                "optimizer": {"lr": 1e-7, "warmup_steps": 0},
                "schedule": {"steps": task["steps"], "evaluate_every": 0, "checkpoint_every": 0},
                "telemetry": {"sequences_per_step": 8 if task["system"].endswith("on") else 0},
                "seed": task["seed"],
            }
        )
    )
    found = _trl(spec, pair) if task["system"] == "trl" else _ours(spec, pair)
    seconds, tokens = found["step_s"][pair.warm_up :], found["tokens"][pair.warm_up :]
    return {
        "tokens_per_s": sum(tokens) / sum(seconds),
        "step_s": statistics.median(seconds),
        "tokens_per_step": statistics.fmean(tokens),
        "truncated": found["truncated"],
        "phase_s": found["phase_s"],
        "memory_gib": _peak_gib(pair),
    }


def _peak_gib(pair: Pair) -> float:
    if pair.on_gpu:
        import torch

        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _ours(spec: Any, pair: Pair) -> dict[str, Any]:
    """Step time is the time between progress messages: encoding and writing of records count."""
    from opd_core.training.process import importing

    with importing():  # as the process of a job does: later searches for garbage leave torch's million objects out
        from opd_core.training.run import train

    stamps: list[tuple[float, int]] = []
    metrics: list[dict[str, float]] = []

    def listen(message: dict[str, Any]) -> None:
        if message["type"] == "progress":
            stamps.append((time.perf_counter(), message["student_tokens"]))
        elif message["type"] == "metrics" and message["step"] > 0:
            metrics.append(message["values"])

    with tempfile.TemporaryDirectory() as folder:
        train(spec, Path(folder) / "out", emit=listen)
    # Between two messages lies the later one's step.
    pairs = list(pairwise(stamps))
    late = metrics[pair.warm_up :]
    return {
        "step_s": [after[0] - before[0] for before, after in pairs],
        "tokens": [after[1] - before[1] for before, after in pairs],
        "truncated": statistics.fmean(values["truncated"] for values in late),
        "phase_s": {
            phase: statistics.median(values[f"time_{phase}_s"] for values in late)
            for phase in ("rollout", "teacher", "update", "telemetry")
        },
    }


def _trl(spec: Any, pair: Pair) -> dict[str, Any]:
    from benchmarks.peers.trl_session import Session

    ((_, voice),) = spec.voices()
    session = Session.load(spec, voice.reference(), own_precision=pair.on_gpu)
    with tempfile.TemporaryDirectory() as folder:
        session.train(folder, beta=0.0, after=lambda step: step >= spec.schedule.steps)
    phases = {name: statistics.median(seconds[pair.warm_up :]) for name, seconds in session.phase_s.items()}
    phases["update"] = statistics.median(session.step_s[pair.warm_up :]) - sum(phases.values())
    return {
        "step_s": session.step_s,
        "tokens": session.tokens,
        "truncated": statistics.fmean(session.truncated[pair.warm_up :]),
        "phase_s": phases,
    }


def summarise(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Medians over the rounds; ratios to TRL are medians of the ratios within a round."""
    told: dict[str, Any] = {}
    for length, by_system in runs.items():
        peer = [run["tokens_per_s"] for run in by_system["trl"]]
        told[length] = {
            system: {
                **{key: statistics.median(run[key] for run in of) for key in ("tokens_per_s", "step_s", "memory_gib")},
                "tokens_per_step": statistics.median(run["tokens_per_step"] for run in of),
                "truncated": statistics.median(run["truncated"] for run in of),
                "phase_s": {
                    phase: statistics.median(run["phase_s"][phase] for run in of) for phase in of[0]["phase_s"]
                },
                "to_trl": statistics.median(run["tokens_per_s"] / other for run, other in zip(of, peer, strict=True)),
            }
            for system, of in by_system.items()
        }
    return told


def as_table(lengths: dict[str, Any]) -> str:
    """Markdown: one line per kind of length and system."""
    phases = ("rollout", "teacher", "update", "telemetry")
    lines = [
        "| Lengths | System | Tokens/s | To TRL | Step, s | " + " | ".join(phases) + " | Peak GiB |",
        "|---" * 10 + "|",
    ]
    for length, by_system in lengths.items():
        for system, one in by_system.items():
            shown = [f"{one['phase_s'][phase]:.3f}" if phase in one["phase_s"] else "–" for phase in phases]
            cells = [length, system, f"{one['tokens_per_s']:,.0f}", f"{one['to_trl']:.2f}", f"{one['step_s']:.3f}"]
            lines.append("| " + " | ".join([*cells, *shown, f"{one['memory_gib']:.2f}"]) + " |")
    return "\n".join(lines)


def _in_a_process(task: dict[str, Any], folder: str, threads: int) -> dict[str, Any]:
    roots = os.pathsep.join(filter(None, [folder, os.environ.get("OPD_MODEL_ROOTS")]))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPD_MODEL_ROOTS": roots}
    command = [sys.executable, "-m", "benchmarks.throughput", "--measure", json.dumps(task)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task['system']} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
