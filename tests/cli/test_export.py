"""``opd export``: the file lands where it was asked for, or one sentence says why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.dashboard.fake_api import DONE, TOKEN, FakeApi


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """The command over the fake service, in an empty directory."""
    monkeypatch.chdir(home)
    with FakeApi() as api:
        monkeypatch.setenv("OPD_API_URL", api.url)
        monkeypatch.setenv("OPD_API_TOKEN", TOKEN)
        yield lambda *arguments: CliRunner().invoke(app, ["export", *arguments])


def test_the_run_is_written_where_it_was_asked_for(run, home: Path) -> None:
    result = run(DONE, "-o", "run.html")
    assert (result.exit_code, result.output) == (0, "run.html\n")
    assert (home / "run.html").read_bytes() == b'{"exported": "job_0done"}'


def test_without_a_name_the_file_is_called_after_the_job(run, home: Path) -> None:
    result = run(DONE)
    assert result.output == "opd-job_0done.html\n"
    assert (home / "opd-job_0done.html").is_file()


def test_an_unknown_job_leaves_no_file(run, home: Path) -> None:
    result = run("job_0nosuch", "-o", "run.html")
    assert result.exit_code == 1
    assert "There is no job 'job_0nosuch'" in result.output
    assert not (home / "run.html").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(run) -> None:
    result = run(DONE, "-o", "nowhere/run.html")
    assert result.exit_code == 2
    assert "--out: cannot write 'nowhere/run.html': No such file or directory" in result.output
