"""What a job may take, in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api import schemas as s


def tell_estimate(found: s.Validation, out: Console) -> None:
    """Warnings, then tokens, operations and memory."""
    for warning in found.warnings:
        out.print(f"[yellow]warning:[/] {escape(warning)}")
    told = found.estimate
    if told is None:  # an older service
        return
    table = Table("at most", "", box=None)
    table.columns[1].justify = "right"
    table.add_row("rollouts", f"{told.rollouts:,}")
    table.add_row("student tokens", f"{told.student_tokens:,}")
    table.add_row("scored tokens", f"{told.scored_tokens:,}")
    if told.flops is not None:
        table.add_row("FLOPs", f"{told.flops:.2g}")
    for part in told.memory or []:
        table.add_row(escape(part.what), f"{part.gib:,.2f} GiB")
    if told.memory_gib is not None:
        table.add_row("memory", f"{told.memory_gib:,.2f} GiB", style="bold")
    out.print(table)
    for sentence in told.unknown:
        out.print(escape(sentence))
    for note in told.notes:
        out.print(f"[dim]{escape(note)}[/]")
