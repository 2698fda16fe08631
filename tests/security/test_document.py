"""docs/security.md names tests that exist, and a limit's default as it is."""

import re
from pathlib import Path

from opd_core.runs.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()


def test_every_proof_exists():
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    files = set(re.findall(r"tests/[\w/]+(?:\.py)?", TEXT))
    assert len(named) > 20
    assert {file for file in files if not (ROOT / file).exists()} == set()
    written = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert named - written == set()


def test_the_table_of_limits_is_right():
    fields = Settings.model_fields
    for line in re.findall(r"^\| (`OPD_\w+`(?:, `OPD_\w+`)*) \| ([\d, ]+) \|", TEXT, re.MULTILINE):
        names, values = re.findall(r"OPD_(\w+)", line[0]), [int(value) for value in line[1].split(", ")]
        assert [fields[name.lower()].default for name in names] == values
