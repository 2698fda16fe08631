"""The terminal door: ``opd --help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import opd_core
from cli import jobs, questions, tokens
from cli.recipes import example_command, recipe_page, recipe_table
from cli.terminal import AsJson, Overrides, SpecFile, complain, line, out, say, service, settings_of, user_errors
from opd_core import recipes as library

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""
On-policy distillation as a service: a student writes, a teacher scores, the student learns.

[bold]See it work[/bold], on this machine and with nothing else installed:

    opd demo

[bold]Run the service[/bold] and give it work from another terminal:

    opd up
    opd submit examples/demo.yaml --watch

[bold]Train one spec[/bold] without any service:

    opd train examples/demo.yaml --out runs/first
""",
)

app.add_typer(jobs.app)
app.add_typer(questions.app)
app.add_typer(tokens.app, name="token")

ApiPort = Annotated[int | None, typer.Option(min=1, max=65535, help="Default 8321, or a free one if that is taken.")]
DashboardPort = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Default 8501, or a free one if that is taken.")
]
WithDashboard = Annotated[bool, typer.Option("--dashboard/--no-dashboard", help="Start the dashboard as well.")]
Home = Annotated[
    Path | None, typer.Option(help="Where everything is kept. Default: OPD_HOME, else ~/.opd.", file_okay=False)
]
Queues = Annotated[str, typer.Option(help="Queues that the worker serves, comma-separated.")]


@app.command()
def up(
    api_port: ApiPort = None,
    dashboard_port: DashboardPort = None,
    dashboard: WithDashboard = True,
    home: Home = None,
    queues: Queues = "cpu",
) -> None:
    """Start the service on this machine: broker, database, API, worker, dashboard. Ctrl-C stops all of it."""
    from cli import up as service
    from cli.broker import BrokerUnavailable
    from cli.processes import PartFailed
    from cli.stopping import Stopped, StopRequest

    settings = settings_of(home)
    options = service.UpOptions(settings, api_port, dashboard_port, dashboard, queues)
    stop = StopRequest().install()
    running = service.Service(options, stop, say)
    code = 0
    try:
        address = running.start()
        say("\n" + service.summary(settings, address) + "\n\nCtrl-C stops everything.")
        running.watch()
    except Stopped:
        pass
    except (service.CannotStart, BrokerUnavailable, PartFailed) as error:
        complain(str(error))
        code = 1
    finally:
        running.stop()
    raise typer.Exit(code)


@app.command()
def demo(
    leave: Annotated[bool, typer.Option("--exit", help="Stop everything when the demo job ends.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed for the demo job.")] = None,
    api_port: ApiPort = None,
    dashboard_port: DashboardPort = None,
    dashboard: WithDashboard = True,
    home: Home = None,
) -> None:
    """Start the service, train the built-in demo job on it and show what it learned.

    The first time, the demo's teacher and student are built (about two minutes on two cores).
    """
    from cli.demo import demo as run
    from cli.up import UpOptions

    options = UpOptions(settings_of(home), api_port, dashboard_port, dashboard)
    raise typer.Exit(run(options, out, leave=leave, seed=seed))


@app.command()
def train(
    spec: SpecFile,
    directory: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's directory.", file_okay=False)],
    overrides: Overrides = None,
) -> None:
    """Train one spec here, with no service. The same command resumes an interrupted DIR.

    Ctrl-C finishes the step and saves a checkpoint; a second one ends at once.
    Exit code 0: done. 1: stopped or crashed. 2: the spec or its data need your attention.
    """
    from cli.train import train as run

    raise typer.Exit(run(spec, directory, overrides or [], out))


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods that can be trained, or show one: formula, source, evidence, needs, cost, settings."""
    with user_errors():
        found = [library.load(each) for each in ([name] if name else library.names())]
    if as_json:
        for recipe in found:
            line(recipe.model_dump_json())
    elif name:
        out.print(recipe_page(found[0]))
        say(f"\nTo change one variable:\n{example_command(found[0])}")
    else:
        out.print(recipe_table(found))


@app.command()
def lab(
    names: Annotated[list[str] | None, typer.Argument(metavar="RECIPE", help="Default: all of them.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the method, e.g. --set credit.gamma=0.5. Repeatable."),
    ] = None,
    critic: Annotated[
        Literal["exact", "zero", "noisy"],
        typer.Option(
            help="What a critic says, if the method has one: what its own targets agree on, zero, or with noise."
        ),
    ] = "exact",
    seed: Annotated[int, typer.Option(min=0, help="Another student, another teacher.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show exactly what a method does: its bias, its noise, where it rests and where mass goes.

    Every sequence that a tiny student can write goes through the method's real code.
    No training, no sampling, no service; about a second per recipe.

    opd lab tml-opd vopd return-to-go: three ways to credit the same log-ratios

    opd lab gae-opd --critic noisy: what a wrong critic costs

    opd lab topk-tail --set support.k=2: any field of the method, as in a spec
    """
    from cli.lab import lab as run

    with user_errors():
        run(names or [], overrides or [], critic=critic, seed=seed, out=out, as_json=as_json)


@app.command()
def bench(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A YAML or JSON file; see benchmarks/plans.")],
    directory: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: bench/NAME here.", file_okay=False)
    ] = None,
    overrides: Overrides = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Another service than this home's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs and what they may cost; start none.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report", help="Write the report of what has ended; start none.")
    ] = False,
) -> None:
    """Compare methods: submit recipes x seeds x tasks as jobs, then write tables with intervals and tests.

    Kill it anywhere and start it again: what has ended is kept, what is running is found again.
    Exit code 0: every run succeeded. 1: some failed (the report counts them). 2: the plan needs your attention.
    """
    from cli import specs
    from cli.bench import command
    from cli.bench.ledger import Ledger
    from cli.bench.plan import read

    with user_errors():
        asked = read(specs.read(plan, overrides))
        folder = command.output(asked, directory)
        if dry_run:
            command.dry_run(asked, out, Ledger(folder, asked) if folder.is_dir() else None)
            raise typer.Exit
        ledger = Ledger(folder, asked)
        if report_only:
            report = command.write_report(asked, command.matrix(asked), ledger)
        else:
            with service(url) as client:
                report = command.bench(asked, client, ledger, out)
    line(str(folder / "report.html"))
    raise typer.Exit(1 if report["runs"]["failed"] else 0)


@app.command()
def version() -> None:
    """Print the version."""
    line(opd_core.__version__)
