"""Temporal credit and its remedies side by side on the demo task: equal steps, equal settings, several seeds.

    python -m benchmarks.credit [--arms NAME ...] [--seeds 0 1 2] [--steps 150] [--prompts 64] [--lr 0.002]
        [--work FILE]

Every arm is examples/demo.yaml with recipe tml-opd and the method overrides of ``ARMS``; the log-ratio is clipped to
+-10 nats in all of them. A run is a process of its own with one thread and a directory of its own, telemetry off. The
work file keeps a line per finished run: the same command with the same file goes on where it was.

accuracy: greedy, on the task's held-out problems, by step. length: mean length of the same greedy answers over that of
the right solutions (end of sequence counted). sampled_length: mean length of the rollouts at the end over that at the
first step. "At the end" is the mean of the last ten steps.
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
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.machine import RESULTS, describe_machine, keep
from worker.trainer_process import QUIET

Overrides = dict[str, Any]

_LAST_STEPS = 10


def _gae(gamma: float, lam: float, form: str, end_of_sequence: str = "return") -> Overrides:
    critic = {"form": form, "end_of_sequence": end_of_sequence}
    return {"credit": {"estimator": "gae", "gamma": gamma, "lam": lam, "critic": critic}}


def _routed(arm: Overrides, magnitude: str) -> Overrides:
    return {**arm, "routing": {"kind": "counterfactual", "magnitude": magnitude}}


_VOPD: Overrides = {"credit": {"baseline": "expected"}}

ARMS: dict[str, Overrides] = {
    "immediate": {},
    "vopd": _VOPD,
    "return-to-go": {"credit": {"estimator": "return_to_go"}},
    "discounted-0.9": {"credit": {"estimator": "discounted", "gamma": 0.9}},
    "normalised-0.9": {"credit": {"estimator": "normalised", "gamma": 0.9}},
    "normalised-1": {"credit": {"estimator": "normalised", "gamma": 1.0}},
    "gae-0.9-value": _gae(0.9, 0.5, "value"),
    "gae-0.9-split": _gae(0.9, 0.5, "split"),
    "gae-0.9-differential": _gae(0.9, 0.5, "differential"),
    "gae-0.9-per-token": _gae(0.9, 0.5, "per_token"),
    "gae-1-split": _gae(1.0, 0.95, "split"),
    "gae-1-differential": _gae(1.0, 0.95, "differential"),
    "gae-1-per-token": _gae(1.0, 0.95, "per_token"),
    "gae-0.9-split-eos": _gae(0.9, 0.5, "split", "immediate"),
    "gae-1-split-eos": _gae(1.0, 0.95, "split", "immediate"),
    "gae-0.9-differential-eos": _gae(0.9, 0.5, "differential", "immediate"),
    "gae-1-differential-eos": _gae(1.0, 0.95, "differential", "immediate"),
    "immediate+cr": _routed({}, "log_ratio"),
    "vopd+cr": _routed(_VOPD, "advantage"),
    "gae-0.9-differential+cr": _routed(_gae(0.9, 0.5, "differential"), "advantage"),
    "gae-0.9-split+cr": _routed(_gae(0.9, 0.5, "split"), "advantage"),
}
"""Name -> method overrides. 0.9 stands for (gamma, lambda) = (0.9, 0.5), 1 for (1, 0.95); eos for a critic that credits
the end of a sequence immediately; cr for counterfactual routing."""

_SHAPING = {"kind": "clip", "limit": 10.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME", help=", ".join(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=0.002)
    parser.add_argument("--prompts", type=int, default=64, help="rollouts per step")
    parser.add_argument("--evaluate-every", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--work", type=Path, help="keeps finished runs; default: nothing is kept between commands")
    parser.add_argument("--out", default="credit", help="name of the result below benchmarks/results")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # one spec as JSON, in this process
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(_train(json.loads(arguments.run))))
        return
    machine = describe_machine()
    from opd_core.runs.settings import Settings
    from opd_core.tasks.demo_models import ensure

    ensure(Settings().home)  # once, and not by two runs at the same time
    specs = [_spec(arm, seed, arguments) for seed in arguments.seeds for arm in arguments.arms]
    with tempfile.TemporaryDirectory() as folder:
        runs = _run_all(specs, arguments.work or Path(folder) / "work.jsonl", arguments.jobs)
    failed = [run for run in runs if "error" in run]
    figures = {
        "settings": {
            "job": f"examples/demo.yaml, lr {arguments.lr}, {arguments.steps} steps of {arguments.prompts} rollouts, "
            f"shaping {_SHAPING}",
            "runs_at_a_time": arguments.jobs,
        },
        "arms": [_summary(arm, runs) for arm in arguments.arms],
    }
    table = as_table(figures["arms"])
    print(table)
    (RESULTS / f"{arguments.out}.md").write_text(table + "\n")
    keep(arguments.out, " ".join(["python -m benchmarks.credit", *sys.argv[1:]]), figures, machine)
    if failed:
        raise SystemExit("\n".join(f"{run['name']}: {run['error']}" for run in failed))


def _spec(arm: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(Path("examples/demo.yaml").read_text())
    spec |= {"name": f"{arm} seed {seed}".replace("+", " "), "recipe": "tml-opd", "seed": seed}
    spec["method"] = {"shaping": _SHAPING, **ARMS[arm]}
    spec["optimizer"]["lr"] = arguments.lr
    spec["rollout"]["prompts_per_step"] = arguments.prompts
    spec["schedule"] |= {
        "steps": arguments.steps,
        "evaluate_every": arguments.evaluate_every,
        "checkpoint_every": 0,
        "max_runtime_s": 86_400,
    }
    spec["telemetry"] = {"sequences_per_step": 0}
    spec["resources"] = {"threads": 1}
    spec["metadata"] = {"arm": arm}
    return spec


def _run_all(specs: list[dict[str, Any]], work: Path, jobs: int) -> list[dict[str, Any]]:
    """The figures of every spec, those of the work file first; finished runs are added to it one by one."""
    known = [json.loads(line) for line in work.read_text().splitlines()] if work.exists() else []
    done = [run for run in known if run["spec"] in specs]
    wanted = [spec for spec in specs if all(run["spec"] != spec for run in done)]
    console = Console()
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(jobs) as pool:
        # An estimate needs the rate of whole rounds: the default looks back 30 s only.
        progress.speed_estimate_period = 3600.0
        bar = progress.add_task("runs", total=len(wanted))
        for future in as_completed([pool.submit(_run, spec) for spec in wanted]):
            run = future.result()
            if "error" not in run:
                with work.open("a") as file:
                    file.write(json.dumps(run) + "\n")
            done.append(run)
            progress.advance(bar)
            console.print(_line(run), markup=False, highlight=False)
    return done


def _run(spec: dict[str, Any]) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **QUIET}
    command = [sys.executable, "-m", "benchmarks.credit", "--run", json.dumps(spec)]
    run = {"arm": spec["metadata"]["arm"], "seed": spec["seed"], "name": spec["name"], "spec": spec}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        return run | {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return run | json.loads(done.stdout.splitlines()[-1])


def _train(spec: dict[str, Any]) -> dict[str, Any]:
    from opd_core.spec import JobSpec
    from opd_core.training.run import train

    metrics: dict[int, dict[str, float]] = {}

    def listen(message: dict[str, Any]) -> None:
        if message["type"] == "metrics":
            metrics[message["step"]] = message["values"]

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="opd-bench-") as folder:
        report = train(JobSpec.model_validate(spec), Path(folder) / "out", emit=listen)
    right = _right_length(report["task"]["eval_problems"], spec["seed"])
    steps = sorted(metrics)
    last = [metrics[step] for step in steps[1:][-_LAST_STEPS:]]
    first = metrics[1]

    def at_end(name: str) -> float | None:
        return statistics.fmean(values[name] for values in last) if name in last[-1] else None

    return {
        "accuracy": {step: metrics[step]["accuracy"] for step in steps if "accuracy" in metrics[step]},
        "teacher_accuracy": report["accuracy"]["teacher"],
        "length": {step: metrics[step]["eval_length"] / right for step in steps if "eval_length" in metrics[step]},
        "sampled_length": (at_end("length_mean") or 0.0) / first["length_mean"],
        "truncated": at_end("truncated"),
        "kl": at_end("kl"),
        "entropy": at_end("entropy_student"),
        "explained_variance": at_end("critic_explained_variance"),
        "length_correlation": at_end("critic_length_correlation"),
        "health": report["health"],
        "student_tokens": report["budget"]["student_tokens"],
        "wall_s": round(time.perf_counter() - started, 1),
    }


def _right_length(problems: int, seed: int) -> float:
    """Mean tokens of the right solutions of the evaluation split, end of sequence counted; every word is a token."""
    from opd_core.tasks.word_problems import distinct_stories, solution

    held_out = distinct_stories(problems, seed=f"eval {seed}", held_out=True)
    return statistics.fmean(len(solution(story).split()) + 1 for story in held_out)


# -- tables ------------------------------------------------------------------------------------------------------------


def _summary(arm: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds of an arm gave, and mean, min and max of each figure."""
    own = sorted((run for run in runs if run["arm"] == arm), key=lambda run: run["seed"])
    good = [run for run in own if "error" not in run]
    summary: dict[str, Any] = {"arm": arm, "method": {"shaping": _SHAPING, **ARMS[arm]}}
    if good:
        summary["accuracy"] = {step: _spread(run["accuracy"][step] for run in good) for step in good[0]["accuracy"]}
        summary["length"] = {step: _spread(run["length"][step] for run in good) for step in good[0]["length"]}
        names = ("sampled_length", "truncated", "kl", "entropy", "student_tokens", "wall_s")
        for name in (*names, "explained_variance", "length_correlation"):
            if good[0][name] is not None:
                summary[name] = _spread(run[name] for run in good)
    unwanted = ("spec", "arm", "name")
    summary["seeds"] = [{key: value for key, value in run.items() if key not in unwanted} for run in own]
    return summary


def _spread(values: Iterable[float]) -> dict[str, float]:
    numbers = list(values)
    return {
        "mean": round(statistics.fmean(numbers), 4),
        "min": round(min(numbers), 4),
        "max": round(max(numbers), 4),
    }


def as_table(arms: list[dict[str, Any]]) -> str:
    """Markdown: one line per arm, mean over the seeds (smallest to largest)."""
    steps = list(next((arm["accuracy"] for arm in arms if "accuracy" in arm), {}))
    titles = [
        "Arm",
        *(f"Accuracy, step {step}" for step in steps),
        "Length / right length",
        "Sampled length / at start",
        "Truncated",
        "Explained variance",
        "Length correlation",
        "Tokens",
        "Seconds",
    ]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for arm in arms:
        if "accuracy" not in arm:
            lines.append("| " + " | ".join([arm["arm"], "failed", *[""] * (len(titles) - 2)]) + " |")
            continue
        cells = [arm["arm"], *(_cell(arm["accuracy"][step]) for step in steps)]
        cells += [_cell(arm["length"][steps[-1]]), _cell(arm["sampled_length"]), _cell(arm["truncated"])]
        cells += [_cell(arm[name]) if name in arm else "-" for name in ("explained_variance", "length_correlation")]
        cells += [f"{arm['student_tokens']['mean']:,.0f}", f"{arm['wall_s']['mean']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(spread: dict[str, float]) -> str:
    return f"{spread['mean']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"


def _line(run: dict[str, Any]) -> str:
    if "error" in run:
        return f"{run['arm']}, seed {run['seed']}: FAILED: {run['error']}"
    curve = ", ".join(f"{float(accuracy):.2f}" for accuracy in run["accuracy"].values())
    length = list(run["length"].values())[-1]
    return f"{run['arm']}, seed {run['seed']}: accuracy {curve}; length {length:.2f}; {run['wall_s']:.0f} s"


if __name__ == "__main__":
    main()
