"""Access tokens: who may do what. A token is shown once, when it is made; the database holds its hash.

A token is 256 random bits, so a plain SHA-256 keeps it: there is nothing to guess, and a lookup by hash tells a
stopwatch nothing about the token.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, fields
from typing import Literal, Self, get_args

from sqlalchemy import ColumnElement, Engine, RowMapping, delete, insert, or_, select, update

from opd_core.runs import tables as t
from opd_core.runs.database import writer
from opd_core.spec import UserError

Scope = Literal["read", "submit", "admin"]
"""Each implies those before it: look; create, steer and ask; delete what others made."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
RESERVED = ("admin", "local")
"""The names of the service's own token (OPD_API_TOKEN or the token file), and of this machine without a token."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SEEN_S = 60.0  # ``last_used_at`` is that exact: a request that reads must not wait for a write


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token as it stands, without its secret. Times are UTC epoch seconds."""

    name: str
    scope: Scope
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    revoked_at: float | None

    @classmethod
    def of(cls, mapping: RowMapping) -> Self:
        return cls(**{field.name: mapping[field.name] for field in fields(cls)})


def token_hash(token: str) -> str:
    """What is stored of a token: hexadecimal SHA-256."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def allows(held: Scope, needed: Scope) -> bool:
    """Whether a token of scope ``held`` may do what ``needed`` may."""
    return SCOPES.index(held) >= SCOPES.index(needed)


class Tokens:
    """Every read and write of tokens. Thread-safe; make the engine after a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writer(engine)

    def create(self, name: str, scope: str, expires_s: float | None = None) -> str:
        """A new token, returned this once. UserError for a name or scope that cannot be.

        The name of a token that was revoked or has expired may be used again.
        """
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise UserError(
                f"name: letters, digits, '.', '_' and '-', at most 64, not {' or '.join(RESERVED)} (got {name[:80]!r})",
                param="name",
                code="invalid_token",
            )
        if scope not in SCOPES:
            raise UserError(
                f"scope: one of {', '.join(SCOPES)} (got {scope[:80]!r})", param="scope", code="invalid_token"
            )
        token = f"opd_{secrets.token_urlsafe(32)}"
        with self._writer.begin() as connection:
            if connection.execute(select(t.tokens.c.name).where(t.tokens.c.name == name, _alive())).first():
                raise UserError(
                    f"name: there is a token {name!r}; revoke it first, or use another name",
                    param="name",
                    code="invalid_token",
                )
            connection.execute(delete(t.tokens).where(t.tokens.c.name == name))
            connection.execute(
                insert(t.tokens).values(
                    name=name,
                    hash=token_hash(token),
                    scope=scope,
                    created_at=t.db_now(),
                    expires_at=None if expires_s is None else t.db_now() + expires_s,
                )
            )
        return token

    def all(self) -> list[Token]:
        """All of them, oldest first, also those that are no longer good."""
        with self._engine.connect() as connection:
            query = select(t.tokens).order_by(t.tokens.c.created_at, t.tokens.c.name)
            return [Token.of(row) for row in connection.execute(query).mappings()]

    def revoke(self, name: str) -> None:
        """From now on the token is worth nothing. UserError when there is no such token, or it was revoked before."""
        good = (t.tokens.c.name == name, t.tokens.c.revoked_at.is_(None))
        with self._writer.begin() as connection:
            changed = connection.execute(update(t.tokens).where(*good).values(revoked_at=t.db_now()))
            if changed.rowcount == 0:
                raise UserError(f"name: there is no token {name[:80]!r} to revoke", param="name", code="invalid_token")

    def holder(self, token: str) -> Token | None:
        """Whose token this is; None for one that is unknown, expired or revoked."""
        found = t.tokens.c.hash == token_hash(token)
        stale = or_(t.tokens.c.last_used_at.is_(None), t.tokens.c.last_used_at < t.db_now() - _SEEN_S)
        with self._engine.connect() as connection:
            query = select(t.tokens, stale.label("stale")).where(found, _alive())
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        if row["stale"]:
            with self._writer.begin() as connection:
                connection.execute(update(t.tokens).where(found).values(last_used_at=t.db_now()))
        return Token.of(row)

    def any(self) -> bool:
        """Whether there is a token that is good."""
        with self._engine.connect() as connection:
            return connection.execute(select(t.tokens.c.name).where(_alive()).limit(1)).first() is not None


def _alive() -> ColumnElement[bool]:
    unexpired = or_(t.tokens.c.expires_at.is_(None), t.tokens.c.expires_at > t.db_now())
    return t.tokens.c.revoked_at.is_(None) & unexpired
