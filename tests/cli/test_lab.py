"""``opd lab`` and the page that is made of it."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.lab import COLUMNS, cells, measure, number
from cli.main import app
from opd_core.recipes import adapt, load, names
from opd_core.spec import UserError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def run(home: Path):
    return lambda *arguments: CliRunner().invoke(app, ["lab", *arguments])


def objects(result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def test_the_table_has_a_row_per_recipe_and_says_how_to_read_it(run) -> None:
    result = run("tml-opd", "return-to-go", "kdrl")
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line.strip()}
    # n, bias seq, cos seq, bias state, cos state, ...
    assert rows["tml-opd"][0] == "1"
    assert rows["tml-opd"][3:5] == ["0", "1.00"]
    assert rows["return-to-go"][1:3] == ["0", "1.00"]
    assert rows["kdrl"][0] == "2"
    assert len(rows["kdrl"]) == len(COLUMNS)
    assert "156 states, 781 sequences" in result.output
    assert "4 states, 13 sequences" in result.output
    for heading, text in COLUMNS.items():
        assert re.search(rf"{heading}\s+{re.escape(text[:20])}", result.output)


def test_the_table_fits_eighty_columns(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("cli.main.out", __import__("rich.console").console.Console(width=80))
    lines = run("position-baseline", "tml-opd").output.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "…" not in "".join(lines)
    assert any(line.startswith("position-baseline") and line.split()[-1].startswith("0.") for line in lines)


def test_json_is_one_object_per_recipe_with_every_figure(run) -> None:
    first, second = objects(run("forward-kl", "vopd", "--json", "--seed", "3"))
    assert [first["recipe"], second["recipe"]] == ["forward-kl", "vopd"]
    assert first["state_forward_kl"]["bias"] < 1e-12
    assert second["state_reverse_kl"]["bias"] < 1e-12
    assert {"batch", "draws", "norm", "variance", "at_rest", "released", "critic"} <= first.keys()
    (other,) = objects(run("forward-kl", "--json"))
    assert other["norm"] != first["norm"]


def test_overrides_and_the_critic_reach_the_method(run) -> None:
    (plain,) = objects(run("tml-opd", "--json"))
    (later,) = objects(run("tml-opd", "--set", "credit.estimator=return_to_go", "--json"))
    assert plain["sequence_reverse_kl"]["bias"] > 0.1
    assert later["sequence_reverse_kl"]["bias"] < 1e-12
    settings = ["--set", "credit.gamma=1.0", "--set", "credit.lam=0.0", "--set", "credit.critic.form=value"]
    exact, noisy, zero = (
        objects(run("gae-opd", *settings, "--set", "credit.critic.end_of_sequence=return", "--critic", kind, "--json"))
        for kind in ("exact", "noisy", "zero")
    )
    assert exact[0]["sequence_reverse_kl"]["bias"] < 1e-9
    assert noisy[0]["sequence_reverse_kl"]["bias"] > 0.1
    assert zero[0]["sequence_reverse_kl"]["bias"] > 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such"], "there is no recipe 'no-such'; choose one of"),
        (["--set", "credit.gamma=1"], "name the recipes that it is for"),
        (["tml-opd", "--set", "credit.gamma=7"], "method.credit.gamma"),
        (["forward-kl", "--set", "credit.estimator=return_to_go"], "a direct loss has none"),
        (["tml-opd", "--set", "gamma"], "write it as key=value"),
        (["tml-opd", "--critic", "wise"], "'wise'"),
    ],
)
def test_a_mistake_is_one_sentence(run, arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_help_teaches(run) -> None:
    text = " ".join(run("--help").output.split())
    for words in ("opd lab tml-opd vopd return-to-go", "--critic noisy", "--set support.k=2", "real code"):
        assert words in text


def test_the_command_line_starts_without_torch() -> None:
    code = "import cli.main, cli.lab, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_overrides_are_those_of_a_job() -> None:
    assert adapt("topk-tail", {"support": {"k": 3}}).support.k == 3
    assert adapt("vopd", {}) == load("vopd").method
    with pytest.raises(UserError, match=r"method\.support\.k"):
        adapt("topk-tail", {"support": {"k": 0}})


def test_only_an_exact_zero_is_written_without_decimals() -> None:
    assert [number(x) for x in (0.0, 1e-12, 0.001, -0.126, None)] == ["0", "0", "0.00", "-0.13", "-"]


@pytest.fixture(scope="module")
def generator() -> dict:
    return runpy.run_path(str(DOCS / "generate_lab.py"))


def test_the_page_is_made_for_a_few_recipes(generator: dict) -> None:
    page = generator["document"](["reverse-kl", "tml-opd", "topk-tail"])
    assert (
        page.index("## Direct") < page.index("| `reverse-kl`") < page.index("## Log-ratio") < page.index("| `tml-opd`")
    )
    small = page[page.index("## Where the vocabulary is larger than k") :]
    assert "| `topk-tail`" in small
    assert "| `tml-opd`" not in small
    assert page.count("| `topk-tail`") == 2


@pytest.mark.parametrize("recipe", ["reverse-kl", "vopd", "gae-opd", "cr-opd", "position-baseline"])
def test_the_committed_page_says_what_the_code_does(recipe: str, generator: dict) -> None:
    page = (DOCS / "lab.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith(f"| `{recipe}` ")]
    found = cells(measure(load(recipe).method)[1])
    written = [cell.strip(" |") for cell in rows[0]][1:]
    assert written[0] == found[0]
    for heading, old, new in zip(COLUMNS, written, found, strict=True):
        if heading != "n":
            assert float(old) == pytest.approx(float(new), abs=0.02), "run: make lab-docs"


def test_the_committed_page_has_every_recipe() -> None:
    page = (DOCS / "lab.md").read_text(encoding="utf-8")
    assert [name for name in names() if f"| `{name}` " not in page] == [], "run: make lab-docs"
