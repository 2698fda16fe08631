"""What the commands share: their options, how they speak, and how they reach the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console

from api.client import ApiError, Client
from cli.address import api_url
from opd_core.runs.settings import Settings
from opd_core.spec import UserError

out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line, for scripts.")]
SpecFile = Annotated[str, typer.Argument(metavar="SPEC", help="A YAML or JSON file; - reads standard input.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one field, e.g. --set optimizer.lr=0.001. Repeatable."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job id, as printed by submit and jobs.")]


def settings_of(home: Path | None = None) -> Settings:
    with user_errors():
        return Settings(home=home) if home is not None else Settings()


@contextmanager
def service(url: str | None = None) -> Iterator[Client]:
    """A client of this home's service, or of the one at ``url``; whatever it refuses becomes one sentence."""
    settings = settings_of()
    url = url or api_url(settings)
    with user_errors(), Client(url, settings.token()) as client:
        try:
            yield client
        except ApiError as error:
            complain(str(error))
            raise typer.Exit(1) from error
        except httpx.TransportError as error:
            complain(f"No service answers at {url}. Start one with `opd up`, or set OPD_API_URL.")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:  # only the watching ends, not the job
            raise typer.Exit(130) from None


@contextmanager
def user_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        complain(error.message)
        raise typer.Exit(2) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        complain(f"OPD_{'_'.join(str(part) for part in first['loc']).upper()}: {first['msg']}")
        raise typer.Exit(2) from error


def line(text: str) -> None:
    """A line for scripts: no wrapping, no colour."""
    typer.echo(text)


def say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
