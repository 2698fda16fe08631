"""TRL's DistillationTrainer as an arm of a plan: the same models, prompts, budget and evaluation, its own code.

    python -m benchmarks.peers.trl_arm PLAN.yaml --out DIR [--name trl] [--beta 0.0]

Writes one record for each task and seed into DIR/runs, beside those of ``opd bench PLAN.yaml --out DIR``; the plan
names it under ``peers``. Records that are there are kept. beta 0 = forward KL, 1 = reverse KL.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.trl_session import Session
from cli import specs
from cli.bench.cells import Cell, matrix
from cli.bench.ledger import Ledger
from cli.bench.plan import Arm, Plan, read
from cli.bench.record import Outcomes, Record
from opd_core.training.evaluation import Evaluation, evaluate, evaluate_samples
from opd_core.training.schedule import spent

_LATE = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="trl")
    parser.add_argument("--beta", type=float, default=0.0)
    arguments = parser.parse_args()
    plan = read(specs.read(arguments.plan))
    if arguments.name not in [peer.name for peer in plan.peers]:
        parser.error(f"the plan names no peer '{arguments.name}'")
    ledger = Ledger(arguments.out, plan)
    known = {record.key for record in ledger.records()}
    for cell in cells(plan, arguments.name):
        if key_of(cell) in known:
            continue
        record = run(cell, beta=arguments.beta)
        ledger.keep(record)
        print(f"{record.label}: {record.report['accuracy']['after'] if record.report else record.error}", flush=True)


def cells(plan: Plan, name: str) -> list[Cell]:
    """The peer's runs: the base under every task and seed."""
    alone = plan.model_copy(
        update={"arms": [Arm(name=name, recipe="forward-kl")], "controls": [], "contrasts": [], "peers": []}
    )
    return matrix(alone).cells


def key_of(cell: Cell) -> str:
    """Stands for the work: another base is another run."""
    return f"peer-{cell.key}"


def run(cell: Cell, *, beta: float) -> Record:
    """One run in this process, as the record that ours leave."""
    torch.manual_seed(cell.seed)
    spec = cell.resolved
    ((_, voice),) = spec.voices()
    teacher = voice.reference()
    assert teacher is not None
    session = Session.load(spec, teacher)
    schedule, budget = spec.schedule, session.budget
    curve: dict[str, list[float | None]] = {
        name: [] for name in ("step", "accuracy", "student_tokens", "teacher_tokens", "flops", "wall_s")
    }

    def examine(step: int) -> Evaluation:
        with budget.phase("evaluation"):
            found = evaluate(session.student, session.task, max_new_tokens=spec.rollout.max_new_tokens)
        assert found is not None
        point = {"step": step, "accuracy": found.accuracy, "wall_s": budget.training_s}
        point |= {name: getattr(budget, name) for name in ("student_tokens", "teacher_tokens", "flops")}
        for name, value in point.items():
            curve[name].append(float(value))
        return found

    with budget.phase("evaluation"):
        taught = evaluate(session.teacher, session.task, max_new_tokens=spec.rollout.max_new_tokens)
    before = latest = examine(0)
    drawn_before = draw(session)
    assert taught is not None

    def after(step: int) -> bool:
        nonlocal latest
        over = step >= schedule.steps or spent(schedule, budget) >= 1.0
        if over or (schedule.evaluate_every and step % schedule.evaluate_every == 0):
            session.student.model.eval()
            latest = examine(step)
            session.student.model.train()
        return over

    with tempfile.TemporaryDirectory() as folder:
        session.train(folder, beta=beta, after=after)
    session.student.model.eval()
    drawn_after = draw(session)
    return Record(
        arm=cell.arm,
        task=cell.task,
        seed=cell.seed,
        key=key_of(cell),
        job=None,
        status="succeeded",
        report=report(cell, session, before, latest, taught, beta),
        outcomes=Outcomes(
            problems=before.problems,
            before=before.correct,
            after=latest.correct,
            teacher=taught.correct,
            length=latest.rollouts.lengths.tolist(),
            truncated=latest.rollouts.truncated.tolist(),
            samples_solved=drawn_after,
            samples_solved_before=drawn_before,
        ),
        curve=curve,
        end={"length_mean": _late(session.lengths), "truncated": _late(session.truncated)},
    )


def draw(session: Session) -> list[int] | None:
    """How many of ``schedule.pass_at_k`` samples of each problem are right; None where the plan asks for none."""
    with session.budget.phase("evaluation"):
        found = evaluate_samples(session.student, session.task, session.spec)
    return None if found is None else found.solved


def report(
    cell: Cell, session: Session, before: Evaluation, after: Evaluation, taught: Evaluation, beta: float
) -> dict[str, Any]:
    """What our reports say, as far as it is known of this system."""
    spec, lead = cell.resolved, taught.accuracy - before.accuracy
    return {
        "spec": spec.model_dump(mode="json"),
        "seed": cell.seed,
        "steps": len(session.step_s),
        "accuracy": {
            "before": before.accuracy,
            "after": after.accuracy,
            "teacher": taught.accuracy,
            "gap_recovered": (after.accuracy - before.accuracy) / lead if lead > 0 else None,
        },
        "budget": session.budget.as_dict(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "trl": importlib.metadata.version("trl"),
        },
        "warnings": [],
        "checklist": {
            "models": {"student": session.student.name, "teacher": session.teacher.name},
            "rollout": spec.rollout.model_dump(mode="json"),
            "objective": {"system": "TRL DistillationTrainer", "divergence": "generalised JSD", "beta": beta},
            "evaluation": {"protocol": f"greedy, at most {spec.rollout.max_new_tokens} new tokens, by our own code"},
            "selection": "the weights after the last step; no checkpoint selection",
        },
    }


def _late(values: list[float]) -> float:
    last = values[-_LATE:]
    return sum(last) / len(last)


if __name__ == "__main__":
    main()
