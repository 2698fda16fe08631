"""Every recipe through the whole service: a tiny job each on the demo task. A smoke table, not a comparison.

    python -m benchmarks.recipes [--recipes NAME ...] [--steps 3]

A recipe passes when its job succeeds and every figure that the service tells of every step is finite. Runs are far too
short to teach anything; accuracies are not measured. seconds: from a worker taking the job to its end, most of it the
start of a training process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from api.client import Client
from benchmarks.machine import describe_machine, keep
from benchmarks.stack import running
from opd_core import recipes

DEMO: dict[str, Any] = {
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems", "eval_examples": 0},
}
_PATIENCE_S = 600.0
# Measured only where a step has right and wrong rollouts, long texts, or suppressed tokens among its probed states.
_AT_TIMES = ("informativeness", "repetition", "favourite_gain", "squeeze", "landing_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=recipes.names(), default=recipes.names(), metavar="NAME")
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    machine = describe_machine()
    rows = []
    with running(dashboard=False) as stack:
        for row in smoke(stack.client, arguments.recipes, DEMO, steps=arguments.steps):
            rows.append(row)
            said = row["problem"] or f"passed in {row['seconds']} s"
            print(f"{len(rows)}/{len(arguments.recipes)} {row['name']}: {said}", flush=True)
    print(as_table(rows))
    if failed := [row for row in rows if row["problem"]]:  # a table with holes is nothing to keep
        raise SystemExit("\n".join(f"{row['name']}: {row['problem']}" for row in failed))
    keep("recipes", " ".join(["python -m benchmarks.recipes", *sys.argv[1:]]), {"recipes": rows}, machine)


def smoke(client: Client, names: Iterable[str], base: dict[str, Any], *, steps: int) -> Iterator[dict[str, Any]]:
    """Submit a tiny job for each recipe, then wait for them in turn; what came of each, ``problem`` None if it passed.

    ``base`` names student, teacher and task of the jobs.
    """
    jobs = [(name, client.submit(_spec(name, base, steps)).id) for name in names]
    for name, job_id in jobs:
        yield _outcome(client, name, job_id, steps)


def _spec(name: str, base: dict[str, Any], steps: int) -> dict[str, Any]:
    # A critic is heard after its warm-up only, and these runs are shorter than the default one.
    heard = {"credit": {"critic": {"warmup_steps": 1}}} if "critic" in recipes.load(name).needs else {}
    return {
        **base,
        "name": name,
        "recipe": name,
        "method": heard,
        "rollout": {"prompts_per_step": 8, "samples_per_prompt": 2, "max_new_tokens": 24},
        "optimizer": {"lr": 1e-3, "warmup_steps": 1},
        "schedule": {"steps": steps, "evaluate_every": 0, "checkpoint_every": 0},
        "telemetry": {"sequences_per_step": 2, "top_k": 4, "probe_states": 4},
    }


def _outcome(client: Client, name: str, job_id: str, steps: int) -> dict[str, Any]:
    job = client.wait(job_id, timeout_s=_PATIENCE_S, poll_s=0.2)
    metrics = client.metrics(job_id)
    row: dict[str, Any] = {"name": name, "steps": len(metrics.steps), "seconds": None}
    if job.started_at and job.finished_at:
        row["seconds"] = round((job.finished_at - job.started_at).total_seconds(), 1)
    last = {key: values[-1] for key, values in metrics.series.items() if values}
    row |= {"loss": _rounded(last.get("loss")), "kl": _rounded(last.get("kl"))}
    row["accuracy"] = {"before": job.accuracy.before, "after": job.accuracy.after}
    # The service tells null for what is not finite, and for what a step had nothing to measure with.
    known = ((key, values) for key, values in metrics.series.items() if not key.startswith(_AT_TIMES))
    holes = sorted(key for key, values in known if None in values)
    row["problem"] = None
    if job.status != "succeeded":
        row["problem"] = f"{job.status}: {job.error.message if job.error else 'no reason given'}"
    elif metrics.steps != list(range(1, steps + 1)):
        row["problem"] = f"metrics of steps {metrics.steps}, not of 1 to {steps}"
    elif holes:
        row["problem"] = f"not finite in some step: {', '.join(holes)}"
    return row


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def as_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line per recipe."""
    lines = ["| Recipe | Steps | Seconds | Loss at the end | KL at the end | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['name']} | {row['steps']} | {row['seconds']} | {row['loss']} | {row['kl']} | {row['problem'] or ''} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
