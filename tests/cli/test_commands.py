"""Commands that need no service, and what they say when there is none."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import opd_core
from cli import specs
from cli.address import Address, announce, api_url
from cli.demo import what_next
from cli.main import app
from cli.recipes import example_command
from cli.shell import DEMO_SPEC, demo_body
from opd_core import recipes
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec, MethodSpec

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("api.client.transport.TRIES", 1)
    return lambda *arguments, **options: CliRunner().invoke(app, list(arguments), **options)


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([name] for name in ("up", "demo", "submit", "watch", "jobs", "cancel", "pause", "resume", "save", "fork")),
        *([name] for name in ("delete", "export", "train", "recipes", "bench", "version")),
    ],
)
def test_every_command_explains_itself(run, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_version(run) -> None:
    assert run("version").output.strip() == opd_core.__version__


def test_recipes_as_json_are_complete(run) -> None:
    lines = [json.loads(line) for line in run("recipes", "--json").output.splitlines()]
    assert [line["name"] for line in lines] == recipes.names()
    assert all(line["citation"] and line["method"] for line in lines)


def test_every_recipe_is_in_the_table_with_its_whole_name(run) -> None:
    words = run("recipes").output.split()
    assert set(recipes.names()) <= set(words)


def test_one_recipe_with_all_that_is_known_of_it(run) -> None:
    result = run("recipes", "kdrl")
    assert result.exit_code == 0
    recipe = recipes.load("kdrl")
    shown = " ".join(result.output.split())
    known = (recipe.citation, recipe.formula, recipe.summary, recipe.evidence, recipe.differs, recipe.teacher)
    for text in (*known, *recipe.cost, *recipe.warnings, "reward, group", "shifted", "distillation_weight: 0.002"):
        assert " ".join(text.split()) in shown
    assert "normalise" not in shown  # at its default


@pytest.mark.parametrize("name", recipes.names())
def test_the_override_that_is_proposed_for_a_recipe_is_accepted(name: str) -> None:
    command = shlex.split(example_command(recipes.load(name)))
    spec = specs.read(str(EXAMPLES.parent / command[2]), command[4::2])
    resolved = recipes.resolve(JobSpec.model_validate(spec))
    assert spec["recipe"] == name
    assert MethodSpec.model_validate(resolved.method) != recipes.load(name).method


def test_unknown_recipe_lists_the_known_ones(run) -> None:
    result = run("recipes", "nope")
    assert result.exit_code == 2
    assert "forward-kl" in result.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a\n- b\n", "must hold a mapping"),
        ("name: [", "neither YAML nor JSON"),
        ('{"name": ', "neither YAML nor JSON"),
    ],
)
def test_submit_of_something_else_is_one_sentence(run, tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    result = run("submit", str(file))
    assert result.exit_code == 2
    assert complaint in result.output
    assert "Traceback" not in result.output


def test_submit_of_a_missing_file(run) -> None:
    result = run("submit", "nowhere.yaml")
    assert result.exit_code == 2
    assert "cannot read 'nowhere.yaml'" in result.output


def test_bad_override_is_one_sentence(run) -> None:
    result = run("submit", str(EXAMPLES / "demo.yaml"), "--set", "seed")
    assert result.exit_code == 2
    assert "--set 'seed'" in result.output


@pytest.mark.parametrize(
    "command",
    [("jobs",), ("watch", "job_1"), ("pause", "job_1"), ("delete", "job_1"), ("export", "job_1"), ("submit", "-")],
)
def test_no_service_is_one_sentence(run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    monkeypatch.setenv("OPD_API_URL", "http://127.0.0.1:9")
    result = run(*command, input="{}")
    assert result.exit_code == 1
    assert "opd up" in result.output
    assert "Traceback" not in result.output


def test_bad_setting_is_one_sentence(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPD_LEASE_S", "soon")
    result = run("jobs")
    assert result.exit_code == 2
    assert "OPD_LEASE_S" in result.output


def test_running_service_of_this_home_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_url(Settings()) == "http://127.0.0.1:8321"
    (home / "run").mkdir()
    announce(home, Address("http://127.0.0.1:4711", None, 1))
    assert api_url(Settings()) == "http://127.0.0.1:4711"
    monkeypatch.setenv("OPD_API_URL", "http://elsewhere:1")
    assert api_url(Settings()) == "http://elsewhere:1"
    monkeypatch.delenv("OPD_API_URL")
    (home / "run" / "service.json").write_text("{half")
    assert api_url(Settings()) == "http://127.0.0.1:8321"


def test_examples_are_the_demo_job() -> None:
    demo = yaml.safe_load(DEMO_SPEC.read_text())
    assert (EXAMPLES / "demo.yaml").read_text() == DEMO_SPEC.read_text()
    assert json.loads((EXAMPLES / "demo.json").read_text()) == demo
    recipes.resolve(JobSpec.model_validate(demo))


def test_what_next_gives_commands_that_can_be_pasted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)  # not in a checkout
    text = what_next(Settings(), "job_1", service_stays=True)
    assert f"{home}/artifacts/jobs/job_1/student" in text
    submit, train, show = (shlex.split(line) for line in text.splitlines()[-3:])
    assert (submit[1:3], train[1:3]) == (["submit", str(DEMO_SPEC)], ["train", str(DEMO_SPEC)])
    assert Path(show[0]).name == "python"
    compile(show[2], "what next", "exec")


def test_the_body_for_curl_is_the_demo_job(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (body,) = shlex.split(demo_body())
    assert json.loads(body) == yaml.safe_load(DEMO_SPEC.read_text())
    monkeypatch.chdir(EXAMPLES.parent)
    assert demo_body() == "@examples/demo.json"
