from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_the_spec_is_up_to_date():
    document = runpy.run_path(str(DOCS / "generate.py"))["document"]
    assert (DOCS / "spec.md").read_text(encoding="utf-8") == document(), "run: python docs/generate.py"
