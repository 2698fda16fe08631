"""The commands that ask a run: what if, and what would it do here."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import specs
from cli.answers import show_probe, show_replan, wait
from cli.terminal import AsJson, JobId, err, line, out, service

app = typer.Typer()


@app.command()
def whatif(
    job: JobId,
    step: Annotated[int, typer.Argument(min=0, help="A recorded step.")],
    recipe: Annotated[str | None, typer.Option(help="Another recipe. Default: the run's own method.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the method, e.g. --set credit.gamma=0.5. Repeatable."),
    ] = None,
    sequence: Annotated[int, typer.Option(min=0, help="Which recorded sequence.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Plan a recorded step again under another method, beside what it was trained with. Nothing is trained.

    opd whatif JOB 20 --recipe cr-opd

    opd whatif JOB 20 --set objective.divergence=reverse_kl
    """
    with service() as client:
        changes = specs.overrides(overrides or [])
        asked = client.replan(job, step, recipe=recipe, method=changes, sequences=[sequence])
        answer = wait(client, asked, err)
        line(answer.model_dump_json(by_alias=True)) if as_json else show_replan(answer, out)
    raise typer.Exit(0 if answer.status == "answered" else 1)


@app.command()
def probe(
    job: JobId,
    prompt: Annotated[str, typer.Argument(help="What the student is to complete.")],
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Default: as in the run.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Default: as in the run; 0 = greedy.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another sample.")] = 0,
    checkpoint: Annotated[str | None, typer.Option(help="Name or id of a checkpoint. Default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let a run's student complete a prompt, its teacher score it and its method plan. Nothing is trained.

    opd probe JOB "Ann has 3 apples . Then she buys 4 . How many ?"
    """
    with service() as client:
        asked = client.probe(
            job, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, checkpoint=checkpoint
        )
        answer = wait(client, asked, err)
        line(answer.model_dump_json(by_alias=True)) if as_json else show_probe(answer, out)
    raise typer.Exit(0 if answer.status == "answered" else 1)
