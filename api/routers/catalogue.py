"""What a spec may name: recipes, models, tasks; and the fields that it has."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api import schemas as s
from api.problems import not_found, responses
from api.services import ServicesDep
from opd_core import recipes
from opd_core.spec import JobSpec, MethodSpec, UserError

router = APIRouter(prefix="/v1", tags=["catalogue"])

_DEMO_MODELS = (
    "demo/student",
    "demo/teacher",
    "demo/synonyms-student",
    "demo/synonyms-teacher",
    "demo/detours-student",
    "demo/detours-teacher",
    "demo/detours-matched-teacher",
    "demo/tools-student",
    "demo/tools-teacher",
)
_TASKS = {
    "demo/word-problems": "Tiny word problems (Ann has 12 apples. She buys 5. How many?) with running totals.",
    "demo/word-problems-short": "The same with one or two changes: a mistake has little after it to spoil.",
    "demo/word-problems-long": "The same with four changes: an early mistake is carried through every later total.",
    "demo/synonyms": "Twelve words that say the same, two of which belong to each thing: vocabulary routing.",
    "demo/synonyms-near": "The same for the two things whose words the student prefers: they are close at hand.",
    "demo/synonyms-far": "The same for the two things whose words the student says least: they are far to reach.",
    "demo/tools": "A calculator answers in the middle of a solution: states that are not all the student's own.",
    "demo/detours": "A student that goes in halves and a teacher that has never seen that: state compatibility.",
    "demo/detours-few": "The same with changes of at most three, a third of which go in halves.",
    "demo/detours-many": "The same with changes of at least three, which all go in halves.",
}


@router.get("/recipes", response_model=s.Page[s.Recipe], summary="List recipes", responses=responses())
def list_recipes() -> s.Page[s.Recipe]:
    """Published methods by name, each with its formula, citation and complete method."""
    return s.Page[s.Recipe](data=[_recipe(name) for name in recipes.names()])


@router.get("/recipes/{name}", response_model=s.Recipe, summary="Read a recipe", responses=responses(404))
def read_recipe(name: Annotated[str, Path(examples=["gkd"])]) -> s.Recipe:
    """One published method."""
    try:
        return _recipe(name)
    except UserError as error:
        raise not_found(error.message, param="name") from error


def _recipe(name: str) -> s.Recipe:
    recipe = recipes.load(name)
    return s.Recipe.model_validate({**recipe.model_dump(mode="json"), "brings": recipe.brings.brief()})


@router.get("/models", response_model=s.Page[s.Model], summary="List models at hand", responses=responses())
def list_models(services: ServicesDep) -> s.Page[s.Model]:
    """Built-in demo models and the model directories directly below OPD_MODEL_ROOTS."""
    found = [s.Model(id=name, kind="demo") for name in _DEMO_MODELS]
    for root in services.settings.model_roots:
        configs = sorted(root.glob("*/config.json")) if root.is_dir() else []
        found += [s.Model(id=str(config.parent), kind="directory") for config in configs]
    return s.Page[s.Model](data=found)


@router.get("/tasks", response_model=s.Page[s.Task], summary="List built-in tasks", responses=responses())
def list_tasks() -> s.Page[s.Task]:
    """Tasks that need no file."""
    return s.Page[s.Task](data=[s.Task(name=name, summary=summary) for name, summary in _TASKS.items()])


@router.get("/schema", response_model=s.SpecSchema, summary="Read the fields of a job spec", responses=responses())
def read_schema() -> s.SpecSchema:
    """JSON schemas with defaults, bounds and descriptions: of the whole spec, and of its ``method``."""
    return s.SpecSchema(job=JobSpec.model_json_schema(), method=MethodSpec.model_json_schema())
