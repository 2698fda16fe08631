"""What the chunked head costs beside the dense one: extra memory and time of one loss, forward and backward.

    python -m benchmarks.loss [--rows 4096] [--vocabulary 50000] [--width 1024] [--threads 1] [--rounds 3]
        [--methods forward-kl ...] [--gradients hidden head] [--device cpu|cuda]

Student and teacher have a hidden state per row and a float32 head of their own. Chunked: ``head_loss`` from the
student's hidden states. Dense: logits [N, V] by one matrix product, ``plan_loss``, autograd. Both apply the same plan,
which is made beforehand. Extra memory: the highest resident memory while the loss runs (on a GPU: the highest that is
allocated there), minus that just before. On a GPU hidden states are bfloat16, as under autocast. Every
case (method, gradient) has a process of its own, in which the arms take turns. Ratios are dense / chunked, of medians.
Processor time is what to read on a machine that is busy with other things.

Needs Linux (/proc) and, at the default size, about 12 GiB of free memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.machine import describe_machine, keep
from benchmarks.meters import OnCpu, OnGpu

METHODS = ("forward-kl", "topk-tail", "tml-opd", "cr-opd")
_GRADIENTS = {"hidden": "hidden states only (head frozen)", "head": "hidden states and the student's head"}
_ARMS = ("chunked", "dense")
_ALIKE = {"cpu": 1e-5, "cuda": 1e-3}  # relative: both arms must have found the same loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--gradients", nargs="+", choices=_GRADIENTS, default=list(_GRADIENTS), help="of what")
    parser.add_argument("--case", nargs=2, metavar=("METHOD", "GRADIENT"), help="one case, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(_measure(*arguments.case, arguments)))
        return
    machine = describe_machine()
    figures: dict[str, Any] = {
        "settings": {
            name: getattr(arguments, name) for name in ("rows", "vocabulary", "width", "threads", "rounds", "device")
        },
        "gradient": _GRADIENTS,
        "cases": [_run(method, gradient) for gradient in arguments.gradients for method in arguments.methods],
    }
    print(as_table(figures["cases"]))
    keep(
        "loss" if arguments.device == "cpu" else f"loss-{arguments.device}",
        " ".join(["python -m benchmarks.loss", *sys.argv[1:]]),
        figures,
        machine,
    )


def _run(method: str, gradient: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.loss", *sys.argv[1:], "--case", method, gradient]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    case: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(case), flush=True)
    return case


def _measure(method: str, gradient: str, size: argparse.Namespace) -> dict[str, Any]:
    # Before torch is imported: its threads are counted once.
    os.environ |= {"OMP_NUM_THREADS": str(size.threads), "MKL_NUM_THREADS": str(size.threads), "GOMP_SPINCOUNT": "0"}
    import torch

    torch.manual_seed(0)
    torch.set_default_device(size.device)
    meter = OnGpu() if size.device == "cuda" else OnCpu()
    student, teacher = _pair(size.rows, size.vocabulary, size.width, size.device)
    student[1].weight.requires_grad_(gradient == "head")
    plan = _plan(method, student, teacher)
    arms = {"chunked": _chunked, "dense": _dense}
    for arm in arms.values():  # libraries allocate their workspaces on first use
        arm(plan[:8], student[0][:8], student[1])

    extra: dict[str, list[float]] = {name: [] for name in _ARMS}
    seconds: dict[str, list[float]] = {name: [] for name in _ARMS}
    processor: dict[str, list[float]] = {name: [] for name in _ARMS}
    values: dict[str, float] = {}
    for round_number in range(size.rounds):
        for name in _ARMS if round_number % 2 == 0 else _ARMS[::-1]:
            before = meter.reset()
            started, spent = time.perf_counter(), time.process_time()
            values[name] = arms[name](plan, *student)  # a number: the device is done with it
            seconds[name].append(round(time.perf_counter() - started, 4))
            processor[name].append(round(time.process_time() - spent, 4))
            extra[name].append(round(meter.peak() - before, 3))
    if abs(values["chunked"] - values["dense"]) > _ALIKE[size.device] * abs(values["dense"]):
        raise SystemExit(f"{method}: the arms disagree on the loss: {values}")
    return {
        "method": method,
        "gradient": gradient,
        "extra_gib": extra,
        "seconds": seconds,
        "processor_seconds": processor,
        "memory_ratio": _ratio(extra),
        "time_ratio": _ratio(seconds),
        "processor_time_ratio": _ratio(processor),
    }


def _ratio(measured: dict[str, list[float]]) -> float:
    return round(statistics.median(measured["dense"]) / statistics.median(measured["chunked"]), 2)


def _pair(rows: int, vocabulary: int, width: int, device: str) -> tuple[Any, Any]:
    """(hidden [N, H], head) of a student and of a teacher that is like it, so that they share favourites."""
    import torch

    student, teacher = Head(vocabulary, width), Head(vocabulary, width)
    with torch.no_grad():
        teacher.weight.add_(student.weight, alpha=2.0)
    hidden = torch.randn(rows, width)
    like = torch.bfloat16 if device == "cuda" else torch.float32
    own, theirs = hidden.to(like), (hidden + 0.3 * torch.randn(rows, width)).to(like)
    return (own.requires_grad_(), student), (theirs, teacher)


class Head:
    """Logits [N, V] of about the spread that language models have, without bias."""

    def __init__(self, vocabulary: int, width: int) -> None:
        import torch

        self.weight = torch.randn(vocabulary, width).mul_(1.5 * width**-0.5)

    def rows(self) -> tuple[Any, None]:
        return self.weight, None

    def transform(self, raw_logits: Any) -> Any:
        return raw_logits

    def __call__(self, hidden: Any) -> Any:
        return (hidden @ self.weight.to(hidden.dtype).T).float()


def _plan(method: str, student: tuple[Any, Head], teacher: tuple[Any, Head]) -> Any:
    import torch

    from opd_core.objective.candidates import wanted_k
    from opd_core.objective.feedback import Feedback
    from opd_core.objective.plan import build_plan
    from opd_core.objective.targets import HiddenTarget
    from opd_core.recipes import load

    found = load(method).method
    rows, vocabulary = len(student[0]), len(student[1].weight)
    feedback = Feedback.from_rows(
        HiddenTarget(student[0].detach(), student[1]),
        HiddenTarget(*teacher),
        torch.randint(vocabulary, (1, rows)),
        torch.ones(1, rows, dtype=torch.bool),
        top_k=wanted_k(found),
    )
    return build_plan(found, feedback)


def _chunked(plan: Any, hidden: Any, head: Head) -> float:
    from opd_core.objective.loss import head_loss

    loss, _ = head_loss(plan, hidden, head)
    return _backward(loss, hidden, head)


def _dense(plan: Any, hidden: Any, head: Head) -> float:
    from opd_core.objective.loss import plan_loss

    loss = (plan_loss(plan, head(hidden)) * plan.weights).sum() / plan.normalizer
    return _backward(loss, hidden, head)


def _backward(loss: Any, hidden: Any, head: Head) -> float:
    import torch

    torch.autograd.grad(loss, [hidden, *([head.weight] if head.weight.requires_grad else [])])
    return float(loss.detach())


def as_table(cases: list[dict[str, Any]]) -> str:
    """Markdown: one line per case."""
    lines = [
        "| Method | Gradient of | Extra memory, dense (GiB) | chunked | ratio | Time, dense (s) | chunked | ratio "
        "| Processor time, ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        gib, seconds = (
            {name: statistics.median(case[key][name]) for name in _ARMS} for key in ("extra_gib", "seconds")
        )
        lines.append(
            f"| {case['method']} | {_GRADIENTS[case['gradient']]} | {gib['dense']:.2f} | {gib['chunked']:.2f} "
            f"| {case['memory_ratio']:.1f} | {seconds['dense']:.1f} | {seconds['chunked']:.1f} "
            f"| {case['time_ratio']:.2f} | {case['processor_time_ratio']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
