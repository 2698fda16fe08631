"""``opd token``: make, list and revoke access tokens, in the database of this home (or of OPD_DATABASE_URL)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from json import dumps
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from cli.terminal import AsJson, complain, line, out, settings_of, user_errors
from opd_core.runs import database
from opd_core.runs.tokens import Tokens
from opd_core.spec import UserError

app = typer.Typer(
    no_args_is_help=True,
    help="Access tokens: read (look), submit (and create and steer jobs), admin (and delete what others made).",
)
_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_NEVER = "never"

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, e.g. ci or dashboard.")]


@app.command()
def create(
    name: Name,
    scope: Annotated[str, typer.Option(help="read, submit or admin.")],
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="Good for so long: 12h, 30d, 8w (m, h, d, w), or never.")
    ] = _NEVER,
) -> None:
    """Make a token and print it, this once: only its hash is kept.

    opd token create ci --scope submit --expires 30d
    """
    with _tokens() as tokens:
        line(tokens.create(name, scope, _seconds(expires)))


@app.command(name="list")
def list_tokens(as_json: AsJson = False) -> None:
    """List tokens, oldest first, also those that are no longer good."""
    with _tokens() as tokens:
        found = tokens.all()
    if as_json:
        for token in found:
            line(dumps(asdict(token)))
        return
    table = Table("name", "scope", "created", "last used", "expires", "revoked")
    for token in found:
        times = (token.created_at, token.last_used_at, token.expires_at, token.revoked_at)
        table.add_row(token.name, token.scope, *map(_date, times))
    out.print(table)


@app.command()
def revoke(name: Name) -> None:
    """Make a token worthless, at once."""
    with _tokens() as tokens:
        tokens.revoke(name)
    line(f"{name} revoked")


@contextmanager
def _tokens() -> Iterator[Tokens]:
    settings = settings_of()
    with user_errors():
        engine = database.connect(settings.database_url)
        try:
            database.migrate(engine)
            yield Tokens(engine)
        except SQLAlchemyError as error:
            # The message of a driver may hold the address with its password.
            complain(f"OPD_DATABASE_URL: the database cannot be used ({type(error).__name__})")
            raise typer.Exit(1) from error
        finally:
            engine.dispose()


def _seconds(text: str) -> float | None:
    if text == _NEVER:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", text)
    if found is None:
        raise UserError(f"--expires: a number and m, h, d or w, or never (got {text[:80]!r})", param="--expires")
    return float(int(found[1]) * _UNITS[found[2]])


def _date(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M}"
