"""``opd bench``: from a plan to its report."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from api.client import Client
from cli.bench.cells import Cell, Matrix, matrix
from cli.bench.ledger import Ledger, as_json, done
from cli.bench.markdown import as_markdown
from cli.bench.page import as_page
from cli.bench.plan import Plan
from cli.bench.results import results
from cli.bench.run import Standing, run
from cli.bench.sheet import as_csv


def dry_run(plan: Plan, console: Console, ledger: Ledger | None) -> None:
    """The matrix and what it costs, as far as that can be known before."""
    found = matrix(plan)
    ended = {} if ledger is None else done(ledger.records(), found.cells)
    sheet = Table("arm", "recipe", "task", "seeds", "ended", "steps at most", "completions a step")
    for arm in found.arms:
        for task in plan.tasks:
            cells = [cell for cell in found.cells if (cell.arm, cell.task) == (arm.name, task.name)]
            spec = cells[0].resolved
            per_step = spec.rollout.prompts_per_step * spec.rollout.samples_per_prompt
            sheet.add_row(
                arm.name,
                arm.recipe,
                task.name,
                ", ".join(str(cell.seed) for cell in cells),
                str(sum(cell.key in ended for cell in cells)),
                str(spec.schedule.steps),
                str(per_step),
            )
    console.print(sheet)
    for control, reason in found.left_out.items():
        console.print(f"control {control} is left out: {reason}", markup=False)
    for sentence in estimate(plan, found, len(ended)):
        console.print(sentence, markup=False, highlight=False)


def estimate(plan: Plan, found: Matrix, ended: int) -> list[str]:
    """What the runs that are left may spend at most."""
    left = len(found.cells) - ended
    share = left / len(found.cells)
    steps = sum(cell.resolved.schedule.steps for cell in found.cells)
    tokens = sum(_completion_tokens(cell) for cell in found.cells)
    told = [
        f"{len(found.cells)} runs, {left} to do: at most {share * steps:,.0f} steps and "
        f"{share * tokens:,.0f} completion tokens."
    ]
    if plan.budget is not None:
        name, limit = plan.budget.limit
        told.append(f"Each run ends at {limit:,.0f} {name.replace('_', ' ')}, in all {left * limit:,.0f}.")
    if plan.budget is not None and plan.budget.limit[0] == "wall_s":
        seconds = left * plan.budget.limit[1]
    elif plan.expected_step_s is not None:
        seconds = share * steps * plan.expected_step_s
    else:
        return [*told, "How long that takes is not known: give expected_step_s, the seconds of a step on your machine."]
    return [
        *told,
        f"About {seconds / 3600:.1f} hours of training steps on one worker, evaluations and starts not counted.",
    ]


def bench(
    plan: Plan, client: Client, ledger: Ledger, console: Console, machine: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Run what is left of the plan, then write the report; returns it as data.

    ``machine``: what is known of where the runs are made; by default of where the report is written.
    """
    found = matrix(plan)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("starting", total=len(found.cells))

        def tell(now: Standing) -> None:
            failed = f", {now.failed} failed" if now.failed else ""
            bar.update(shown, completed=now.fraction, description=f"{now.finished}/{now.cells} runs{failed}; {now.now}")

        def say(sentence: str) -> None:
            bar.console.print(sentence, markup=False, highlight=False)

        run(client, found.cells, ledger, tell=tell, say=say)
    return write_report(plan, found, ledger, machine)


def write_report(plan: Plan, found: Matrix, ledger: Ledger, machine: dict[str, Any] | None = None) -> dict[str, Any]:
    """results.json, results.csv, report.md and report.html from the records that there are."""
    keys = {cell.key for cell in found.cells}
    peers = {peer.name for peer in plan.peers}
    records = [record for record in ledger.records() if record.key in keys or record.arm in peers]
    report = results(plan, found, records) | {"machine": machine or _machine()}
    ledger.write("results.json", as_json(report))
    ledger.write("results.csv", as_csv(records))
    ledger.write("report.md", as_markdown(report))
    ledger.write("report.html", as_page(report))
    return report


def output(plan: Plan, out: Path | None) -> Path:
    """Where the plan's results go."""
    return out if out is not None else Path("bench") / plan.name


def _completion_tokens(cell: Cell) -> int:
    spec = cell.resolved
    rollout = spec.rollout
    return spec.schedule.steps * rollout.prompts_per_step * rollout.samples_per_prompt * rollout.max_new_tokens


def _machine() -> dict[str, Any]:
    """Where the report was written; with an embedded service also where the runs were made."""
    return {"report written on": platform.platform(), "cores there": os.cpu_count()}
