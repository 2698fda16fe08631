"""The live line, without a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from cli.view import RunView, clock, describe_progress, percent


def transcript(*said: tuple[str, dict]) -> str:
    console = Console(file=io.StringIO(), width=200)
    with RunView(console) as view:
        for kind, data in said:
            view.show(kind, data)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_output_shows_phases_once_and_the_last_step() -> None:
    text = transcript(
        ("phase", {"phase": "training"}),
        ("status", {"status": "running", "phase": "training"}),
        ("progress", {"step": 1, "total": 3, "loss": 0.5}),
        ("progress", {"step": 2, "total": 3, "loss": 0.4}),
        ("progress", {"step": 3, "total": 3, "loss": 0.3, "accuracy": 0.875, "tokens_per_s": 8123.4, "eta_s": 0}),
        ("progress", {"step": 3, "total": 3}),
        ("metrics", {"step": 3}),
    )
    assert text.splitlines() == [
        "training",
        "step 1/3  loss 0.500",
        "step 3/3  loss 0.300  accuracy 88 %  8,123 tokens/s  ETA 0:00",
    ]


def test_warnings_stay_and_text_is_not_markup() -> None:
    text = transcript(
        ("event", {"level": "info", "message": "not shown"}),
        ("event", {"level": "warning", "message": "[bold]mind[/bold] the gap"}),
        ("warning", {"message": "from the trainer"}),
    )
    assert text.splitlines() == ["[bold]mind[/bold] the gap", "from the trainer"]


def test_nothing_known_yet() -> None:
    assert describe_progress({"step": None, "total": None, "loss": None}) == ""
    assert transcript(("progress", {})) == ""


def test_numbers_for_people() -> None:
    assert (percent(None), percent(0.005), percent(1.0)) == ("-", "0 %", "100 %")
    assert (clock(5.4), clock(65), clock(3725)) == ("0:05", "1:05", "1:02:05")
