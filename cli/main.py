"""The terminal door: ``opd --help``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

import opd_core
from api.client import ApiError, Client
from cli import specs
from cli.address import api_url
from cli.follow import SUCCEEDED, follow, follow_as_json, tell_outcome
from cli.recipes import example_command, recipe_page, recipe_table
from cli.view import percent
from opd_core import recipes as library
from opd_core.runs.settings import Settings
from opd_core.spec import UserError

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

out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line, for scripts.")]
SpecFile = Annotated[str, typer.Argument(metavar="SPEC", help="A YAML or JSON file; - reads standard input.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one field, e.g. --set optimizer.lr=0.001. Repeatable."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job id, as printed by submit and jobs.")]
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

    settings = _settings(home)
    options = service.UpOptions(settings, api_port, dashboard_port, dashboard, queues)
    stop = StopRequest().install()
    running = service.Service(options, stop, _say)
    code = 0
    try:
        address = running.start()
        _say("\n" + service.summary(settings, address) + "\n\nCtrl-C stops everything.")
        running.watch()
    except Stopped:
        pass
    except (service.CannotStart, BrokerUnavailable, PartFailed) as error:
        _complain(str(error))
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

    options = UpOptions(_settings(home), api_port, dashboard_port, dashboard)
    raise typer.Exit(run(options, out, leave=leave, seed=seed))


@app.command()
def submit(
    spec: SpecFile,
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Queue a job and print its id.

    opd submit examples/demo.yaml --watch

    opd submit examples/demo.yaml --set recipe=reverse-kl --set seed=1
    """
    with _service() as client:
        job = client.submit(specs.read(spec, overrides))
        if as_json:
            _line(job.model_dump_json())
        else:
            _line(job.id)
        if watch:
            raise typer.Exit(_watch(client, job.id, as_json=as_json))


@app.command()
def watch(job: JobId, as_json: AsJson = False) -> None:
    """Follow a job to its end. Exit code 0 if it succeeded, 1 if not."""
    with _service() as client:
        raise typer.Exit(_watch(client, job, as_json=as_json))


@app.command()
def jobs(
    as_json: AsJson = False,
    status: Annotated[str | None, typer.Option(help="Only jobs in this status, e.g. running.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
) -> None:
    """List jobs, newest first."""
    with _service() as client:
        page = client.jobs(limit=limit, status=status)
    if as_json:
        for job in page.data:
            _line(job.model_dump_json())
        return
    table = Table("job", "name", "recipe", "status", "step", "accuracy", "created")
    for job in page.data:
        step = "" if job.progress.step is None else f"{job.progress.step}/{job.progress.total}"
        latest = job.accuracy.after if job.accuracy.after is not None else job.accuracy.latest
        created = f"{job.created_at.astimezone():%Y-%m-%d %H:%M}"
        table.add_row(job.id, job.name, job.recipe, job.status, step, percent(latest), created)
    out.print(table)


@app.command()
def cancel(job: JobId, as_json: AsJson = False) -> None:
    """Stop a job. Its last checkpoint is kept."""
    with _service() as client:
        cancelled = client.cancel(job)
    _line(cancelled.model_dump_json() if as_json else f"{cancelled.id} {cancelled.status}")


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
    with _user_errors():
        found = [library.load(each) for each in ([name] if name else library.names())]
    if as_json:
        for recipe in found:
            _line(recipe.model_dump_json())
    elif name:
        out.print(recipe_page(found[0]))
        _say(f"\nTo change one variable:\n{example_command(found[0])}")
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

    with _user_errors():
        run(names or [], overrides or [], critic=critic, seed=seed, out=out, as_json=as_json)


@app.command()
def version() -> None:
    """Print the version."""
    _line(opd_core.__version__)


def _watch(client: Client, job_id: str, *, as_json: bool) -> int:
    if as_json:
        job = follow_as_json(client, job_id, _line)
    else:
        job = follow(client, job_id, out)
        tell_outcome(job, out)
    return 0 if job.status == SUCCEEDED else 1


def _settings(home: Path | None = None) -> Settings:
    with _user_errors():
        return Settings(home=home) if home is not None else Settings()


@contextmanager
def _service() -> Iterator[Client]:
    """A client of this home's service; every way in which it can refuse becomes one sentence."""
    settings = _settings()
    url = api_url(settings)
    with _user_errors(), Client(url, settings.token()) as client:
        try:
            yield client
        except ApiError as error:
            _complain(str(error))
            raise typer.Exit(1) from error
        except httpx.TransportError as error:
            _complain(f"No service answers at {url}. Start one with `opd up`, or set OPD_API_URL.")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:  # only the watching ends, not the job
            raise typer.Exit(130) from None


@contextmanager
def _user_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        _complain(error.message)
        raise typer.Exit(2) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        _complain(f"OPD_{'_'.join(str(part) for part in first['loc']).upper()}: {first['msg']}")
        raise typer.Exit(2) from error


def _line(text: str) -> None:
    """A line for scripts: no wrapping, no colour."""
    typer.echo(text)


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _complain(text: str) -> None:
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
