from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from pydantic import BaseModel

from opd_core.recipes import load, names
from opd_core.spec import JobSpec, MethodSpec

DOCS = Path(__file__).parents[2] / "docs"
PAGES = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]


@pytest.mark.parametrize("page", PAGES)
def test_the_generated_pages_are_up_to_date(page):
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page](), "run: python docs/generate.py"


def test_the_spec_page_has_every_field_of_every_nested_model():
    page = (DOCS / "spec.md").read_text(encoding="utf-8")
    tables = [set(re.findall(r"^\| `(\w+)` \|", section, flags=re.M)) for section in page.split("\n#")]
    for model in [*nested(JobSpec), *nested(MethodSpec)]:
        fields = {field.alias or name for name, field in model.model_fields.items()}
        assert tables.count(fields) >= 1, model.__name__
    headings = re.findall(r"^#+ .*", page, flags=re.M)
    assert len(headings) == len(set(headings))


def test_the_recipes_page_has_every_recipe_once():
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^#### (\S+)$", page, flags=re.M)) == names()


def test_the_readme_names_every_recipe_once_and_marks_the_hypotheses():
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| Variable |") :].split("\n\n")[0]
    assert sorted(re.findall(r"`([^`]+)`", table)) == names()
    marked = set(re.findall(r"`([^`]+)` \*", table))
    assert marked == {name for name in names() if load(name).grade == "hypothesis"}


def nested(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The model and every model that its fields hold, through unions, tuples and annotations."""
    found = {model}
    waiting = [field.annotation for field in model.model_fields.values()]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= nested(kind)
        waiting += getattr(kind, "__args__", ())
    return found
