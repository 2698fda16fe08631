"""The honest report of a run: what was asked, what was spent, what came out."""

from __future__ import annotations

from typing import Any

from opd_core.recipes import Recipe
from opd_core.spec import JobSpec
from opd_core.training.budget import Budget
from opd_core.training.tally import Tally


def build_report(
    *,
    spec: JobSpec,
    recipe: Recipe,
    steps: int,
    budget: Budget,
    accuracy: dict[str, float | None],
    versions: dict[str, Any],
    models: dict[str, Any],
    task: dict[str, Any],
    self_check: dict[str, Any] | None,
    warnings: list[str],
    health: list[dict[str, Any]],
    tally: Tally,
    attempt: int,
) -> dict[str, Any]:
    """The content of report.json. Every figure comes from this run; unknown ones are null."""
    return {
        "name": spec.name,
        "recipe": recipe.name,
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed,
        "steps": steps,
        "accuracy": accuracy,
        "budget": budget.as_dict(),
        "models": models,
        "task": task,
        "versions": versions,
        "self_check": self_check,
        "attempts": attempt,
        "warnings": warnings,
        "health": health,
        "checklist": _checklist(spec, recipe, budget, models, task, tally),
    }


def gap_recovered(before: float | None, after: float | None, teacher: float | None) -> float | None:
    """(after - before) / (teacher - before), the share of the teacher's lead that the student made up."""
    if before is None or after is None or teacher is None or teacher <= before:
        return None
    return (after - before) / (teacher - before)


def _tokenizer(spec: JobSpec, tally: Tally) -> dict[str, Any] | None:
    """How a teacher with another tokenizer was aligned; None where it has the student's."""
    if spec.teacher is None or spec.teacher.tokenizer is None:
        return None
    realised = {f"aligned{name}": mean for name, mean in tally.means("aligned").items()}
    return {**spec.teacher.tokenizer.model_dump(), "realised": realised}


def _checklist(
    spec: JobSpec, recipe: Recipe, budget: Budget, models: dict[str, Any], task: dict[str, Any], tally: Tally
) -> dict[str, Any]:
    """The reporting checklist, one entry per topic. ``realised``: means over the run of what was really done."""
    rollout, method = spec.rollout, spec.method
    needs = spec.method_spec().needs
    credit = {name: value for name, value in method["credit"].items() if name != "critic"}
    if "critic" in needs:
        credit["critic"] = {**method["credit"]["critic"], "realised": tally.means("critic_")}
    return {
        "models": {**models, "reference": "the student at the start of the run"} if "reference" in needs else models,
        "data": task,
        "rollout": {
            "samples_per_prompt": rollout.samples_per_prompt,
            "length_cap": rollout.max_new_tokens,
            "temperature": rollout.temperature,
            "top_p": rollout.top_p,
            "written_by": rollout.written_by.model_dump(),
            "teacher_mix": rollout.teacher_mix,
            "prefix": None if rollout.prefix is None else rollout.prefix.model_dump(),
            "replay": None if rollout.replay is None else rollout.replay.model_dump(),
            "server": rollout.endpoint,
            "realised": tally.means("rows_"),
        },
        "tokenizer": _tokenizer(spec, tally),
        "objective": {"formula": recipe.formula, "citation": recipe.citation, **method["objective"]},
        "support": {**method["support"], "realised": tally.means("support_")},
        "shaping": method["shaping"],
        "credit": {**credit, "aggregation": method["aggregation"]},
        "routing": {**method["routing"], "realised": tally.means("route_")},
        "gates": [{**gate, "realised": tally.means(f"gate_{gate['kind']}_")} for gate in method["gates"]],
        "importance": {**method["importance"], "realised": tally.means("importance_")},
        "regularizers": list(method["regularizers"]),
        "reward": _reward(spec) if "reward" in needs else None,
        "cost": {
            "student_tokens": budget.student_tokens,
            "teacher_written_tokens": budget.teacher_written_tokens,
            "teacher_tokens": budget.teacher_tokens,
            "flops": budget.flops,
            "wall_s": budget.wall_s,
            "not_counted": "training of the teacher and of the student's starting point; the critic's head",
        },
        "evaluation": {
            "protocol": f"greedy, at most {rollout.max_new_tokens} new tokens, one answer per problem",
            "problems": task["eval_problems"],
            "seeds": 1,
        },
        "selection": "the weights after the last step; no checkpoint selection",
    }


def _reward(spec: JobSpec) -> dict[str, Any]:
    verifier = "the task's own" if spec.task.name is not None else spec.task.verifier.kind
    return {"verifier": verifier, "right": 1.0, "wrong": 0.0, "group": spec.rollout.samples_per_prompt}


def as_markdown(report: dict[str, Any]) -> str:
    """report.md: the same figures for people."""
    accuracy, budget = report["accuracy"], report["budget"]
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in budget["wall_s_by_phase"].items() if seconds)
    lines = [
        f"# {report['name']}",
        "",
        f"Recipe `{report['recipe']}`, seed {report['seed']}, {report['steps']} steps.",
        "",
        "| | accuracy |",
        "|---|---|",
        f"| student before | {_percent(accuracy['before'])} |",
        f"| student after | {_percent(accuracy['after'])} |",
        f"| teacher | {_percent(accuracy['teacher'])} |",
        f"| gap recovered | {_percent(accuracy['gap_recovered'])} |",
        "",
        "| spent | |",
        "|---|---|",
        f"| tokens the student generated | {budget['student_tokens']:,} |",
        f"| tokens the teacher read | {budget['teacher_tokens']:,} |",
        f"| estimated FLOPs | {budget['flops']:.3g} |",
        f"| wall time | {budget['wall_s']:.1f} s ({phases}) |",
        "",
        f"Student `{report['models']['student']['name']}`, teacher `{report['models']['teacher']['name']}`, "
        f"task `{report['task']['name']}` ({report['task']['eval_problems']} held-out problems, greedy).",
        "",
        *(f"- Warning: {warning}" for warning in report["warnings"]),
        "",
        "Versions: " + ", ".join(f"{key} {value}" for key, value in report["versions"].items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.1f} %"
