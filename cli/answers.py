"""How answers to questions about a run look in a terminal: one row per token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.client import Client
from api.schemas import Mark, Probe, Question, Replan, Token

# Field -> its label; those that stay the same whatever the plan come first.
_FIELDS = {
    "log_ratio": "r",
    "return_": "return",
    "advantage": "A",
    "gate": "gate",
    "coefficient": "coeff.",
}
_CHANGING = ("advantage", "gate", "coefficient")


def wait(client: Client, question: Question, console: Console) -> Question:
    """The question once it is closed; what happens meanwhile is told on the terminal."""
    with console.status(question.phase) as status:
        return client.answer(question, tell=lambda now: status.update(Text(now.phase)))


def show_replan(question: Question, console: Console) -> None:
    """Both plans of the sequences, and what is approximate."""
    result = question.result
    if not isinstance(result, Replan):
        _show_failure(question, console)
        return
    for sequence in result.sequences:
        recorded, replanned = sequence.recorded, sequence.replanned
        console.print(Text(f"step {result.step}, sequence {recorded.n}: as trained -> re-planned", style="bold"))
        table = _table("token", *(_FIELDS[name] for name in _FIELDS), "route as trained", "re-planned")
        for before, after in zip(recorded.tokens, replanned.tokens, strict=True):
            numbers = [
                f"{_number(before, name)} -> {_number(after, name)}" if name in _CHANGING else _number(after, name)
                for name in _FIELDS
            ]
            table.add_row(*map(Text, [_shown(before.text), *numbers, _route(before), _route(after)]))
        console.print(table)
    _show_marks(result.marks, console)


def show_probe(question: Question, console: Console) -> None:
    """What the student wrote and what the feedback makes of it."""
    result = question.result
    if not isinstance(result, Probe):
        _show_failure(question, console)
        return
    where = f"checkpoint {result.checkpoint}" if result.checkpoint else "the start of the run"
    console.print(Text(f"{where}: {result.sequence.completion}", style="bold"))
    table = _table("token", *_FIELDS.values(), "the teacher would rather", "route")
    for token in result.sequence.tokens:
        numbers = [_number(token, name) for name in _FIELDS]
        table.add_row(*map(Text, [_shown(token.text), *numbers, _preferred(token), _route(token)]))
    console.print(table)
    for note in result.notes:
        console.print(Text(note, style="yellow"))
    _show_marks(result.marks, console)


def _table(*labels: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for label in labels:
        table.add_column(label)
    return table


def _number(token: Token, name: str) -> str:
    value = getattr(token, name)
    return "-" if value is None else f"{value:.3f}"


def _route(token: Token) -> str:
    largest = sorted(token.route, key=lambda entry: -abs(entry.weight or 0.0))[:3]
    return ", ".join(f"{_shown(entry.text)} {entry.weight or 0.0:+.3f}" for entry in largest)


def _preferred(token: Token) -> str:
    best = token.teacher_top[0] if token.teacher_top else None
    return _shown(best.text) if best is not None and best.id != token.id else ""


def _shown(text: str) -> str:
    """Token text on one line: control characters would move the cursor."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _show_marks(marks: Mapping[str, Mark], console: Console) -> None:
    for line in _reasons(marks):
        console.print(Text(line, style="dim"), soft_wrap=True)


def _reasons(marks: Mapping[str, Mark]) -> Iterator[str]:
    """Fields that share their reasons are told together."""
    together: dict[tuple[str, ...], list[str]] = {}
    for field, mark in marks.items():
        if not mark.exact:
            together.setdefault(tuple(mark.reasons), []).append(field)
    for reasons, fields in together.items():
        yield f"approximate: {', '.join(fields)}: {'; '.join(reasons)}"


def _show_failure(question: Question, console: Console) -> None:
    message = question.error.message if question.error else "there is no answer"
    console.print(Text(message, style="red"), soft_wrap=True)
