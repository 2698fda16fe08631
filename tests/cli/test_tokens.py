"""``opd token``: the secret is printed once, the list never shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from opd_core.runs import database
from opd_core.runs.settings import Settings
from opd_core.runs.tokens import Tokens


@pytest.fixture
def run(home: Path):
    return lambda *arguments: CliRunner().invoke(app, ["token", *arguments])


def test_create_list_revoke(run) -> None:
    secret = run("create", "ci", "--scope", "submit", "--expires", "30d").stdout.strip()
    engine = database.connect(Settings().database_url)
    assert Tokens(engine).holder(secret).scope == "submit"
    listed = run("list", "--json").stdout
    assert secret not in listed + run("list").stdout
    token = json.loads(listed)
    assert token["name"] == "ci"
    assert token["expires_at"] - token["created_at"] == pytest.approx(30 * 24 * 3600, abs=5)
    assert run("revoke", "ci").exit_code == 0
    assert Tokens(engine).holder(secret) is None
    engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", "ci", "--scope", "root"), "scope: one of read, submit, admin (got 'root')"),
        (("create", "a b", "--scope", "read"), "name: letters, digits"),
        (("create", "ci", "--scope", "read", "--expires", "soon"), "--expires: a number and m, h, d or w, or never"),
        (("revoke", "nobody"), "there is no token 'nobody' to revoke"),
    ],
)
def test_mistakes_get_one_sentence(run, arguments, sentence) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""


def test_a_database_that_is_away_shows_no_password(run, monkeypatch) -> None:
    monkeypatch.setenv("OPD_DATABASE_URL", "postgresql://user:secret-password@127.0.0.1:1/x")
    result = run("list")
    assert result.exit_code == 1
    assert "OPD_DATABASE_URL" in result.stderr
    assert "secret-password" not in result.output
