"""The demo models in miniature: built once, atomically, the same every time, ordinary to load."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from opd_core.models import check_vocabularies, load_model
from opd_core.spec import ModelSpec
from opd_core.tasks import demo_models
from opd_core.tasks.demo_recipe import (
    DETOURS,
    RECIPE,
    SYNONYMS,
    DemoRecipe,
    DetourRecipe,
    DetourSchool,
    School,
    SynonymRecipe,
    SynonymSchool,
    ToolRecipe,
    ToolSchool,
)

SCHOOL = School(batches=3, seed=1, disturbance=0.1, hidden=16, layers=1, heads=2, intermediate=16, batch_size=8)
SMALL = {"batches": 2, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 16, "batch_size": 8}
TINY = DemoRecipe(teacher=SCHOOL, student=replace(SCHOOL, batches=2, seed=2, miscount=0.5), examined=4)


def test_build_once_and_load_like_any_other_model(tmp_path, monkeypatch) -> None:
    calls = []
    assert not demo_models.is_built(tmp_path, TINY)
    built = demo_models.ensure(tmp_path, lambda *call: calls.append(call), TINY)
    assert demo_models.is_built(tmp_path, TINY)
    assert {path.name for path in built.iterdir()} == {"student", "teacher", "build.json"}
    labels, done, totals = zip(*calls, strict=True)
    assert all(isinstance(label, str) for label in labels)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}

    monkeypatch.setattr("opd_core.tasks.demo_school.build", pytest.fail)
    assert demo_models.ensure(tmp_path, None, TINY) == built

    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tmp_path))
    student = load_model(ModelSpec(model=str(built / "student")), trainable=True, role="student")
    teacher = load_model(ModelSpec(model=str(built / "teacher")), trainable=False, role="teacher")
    assert check_vocabularies(student, teacher) == 73
    assert student.eos_ids == (2,)
    AutoModelForCausalLM.from_pretrained(built / "teacher")
    assert AutoTokenizer.from_pretrained(built / "teacher").eos_token == "<eos>"
    report = json.loads((built / "build.json").read_text())
    assert {"student", "teacher"} <= set(report)
    assert all(0 <= report[name]["exact_match"] <= 1 for name in ("student", "teacher"))


def test_the_same_weights_every_time(tmp_path) -> None:
    first, second = (demo_models.ensure(tmp_path / name, None, TINY) for name in ("a", "b"))
    for model in TINY.schools:
        a, b = (load_file(built / model / "model.safetensors") for built in (first, second))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_callers_random_state_and_threads_are_left_alone(tmp_path) -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    demo_models.ensure(tmp_path, None, TINY)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_an_interrupted_build_leaves_nothing(tmp_path) -> None:
    def interrupt(label: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_models.ensure(tmp_path, interrupt, TINY)
    assert not demo_models.is_built(tmp_path, TINY)
    assert not [path for path in (tmp_path / "models" / "demo").iterdir() if path.is_dir()]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("demo-school")]
    demo_models.ensure(tmp_path, None, TINY)


def test_leftovers_of_a_killed_builder_go_away(tmp_path) -> None:
    target = demo_models.directory(tmp_path, TINY)
    leftover = target.with_name(f"{target.name}.abc.tmp")
    leftover.mkdir(parents=True)
    demo_models.ensure(tmp_path, None, TINY)
    assert not leftover.exists()


def test_concurrent_builders_build_once(tmp_path, monkeypatch) -> None:
    from opd_core.tasks import demo_school

    builds = []
    build = demo_school.build
    monkeypatch.setattr(demo_school, "build", lambda *args: (builds.append(1), build(*args)))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(demo_models.ensure(tmp_path, None, TINY))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert len(set(results)) == 1
    assert builds == [1]


def test_a_changed_recipe_has_another_directory(tmp_path) -> None:
    changed = replace(TINY, student=replace(TINY.student, lr=2e-3))
    names = {demo_models.directory(tmp_path, recipe) for recipe in (TINY, changed, RECIPE)}
    assert len(names) == 3


def test_the_first_models_keep_their_place() -> None:
    """A cached pair is never built again because other sets were added: its directory is a digest of its recipe."""
    assert demo_models.directory(Path("/home"), RECIPE) == Path("/home/models/demo/35c872261b")
    places = {demo_models.directory(Path("/home"), recipe) for recipe in demo_models.RECIPES.values()}
    assert len(places) == 4


def test_every_model_is_named_and_found() -> None:
    assert list(demo_models.NAMES) == [
        "demo/student",
        "demo/teacher",
        "demo/synonyms-teacher",
        "demo/synonyms-student",
        "demo/detours-teacher",
        "demo/detours-student",
        "demo/detours-matched-teacher",
        "demo/tools-teacher",
        "demo/tools-student",
    ]
    assert demo_models.NAMES["demo/detours-matched-teacher"] == (DETOURS, "matched-teacher")


def test_only_what_is_named_is_built(tmp_path) -> None:
    assert demo_models.missing(tmp_path, ["Qwen/Qwen3-0.6B", "/models/mine"]) == []
    wanted = ["demo/detours-student", "demo/synonyms-teacher", "demo/detours-teacher"]
    assert demo_models.missing(tmp_path, wanted) == [DETOURS, SYNONYMS]
    demo_models.directory(tmp_path, DETOURS).mkdir(parents=True)
    assert demo_models.missing(tmp_path, wanted) == [SYNONYMS]


@pytest.mark.parametrize(
    ("recipe", "tokens"),
    [
        (
            SynonymRecipe(
                teacher=SynonymSchool(**SMALL, seed=1, foreign=0.5), student=SynonymSchool(**SMALL, seed=2), examined=4
            ),
            85,
        ),
        (
            DetourRecipe(
                teacher=DetourSchool(**SMALL, seed=1),
                student=DetourSchool(**SMALL, seed=2, detour=0.9, forget=0.5, habit=True),
                matched_teacher=DetourSchool(**SMALL, seed=1, detour=0.5, forget=0.5),
                examined=4,
            ),
            74,
        ),
        (
            ToolRecipe(
                teacher=ToolSchool(**SMALL, seed=1, calls=0.5),
                student=ToolSchool(**SMALL, seed=2, calls=0.25, miscount=0.5),
                examined=4,
            ),
            75,
        ),
    ],
)
def test_the_other_sets_are_built_alike(tmp_path, recipe: DemoRecipe, tokens: int) -> None:
    built = demo_models.ensure(tmp_path, None, recipe)
    assert {path.name for path in built.iterdir()} == {*recipe.schools, "build.json"}
    for name in recipe.schools:
        assert len(AutoTokenizer.from_pretrained(built / name)) == tokens
        assert AutoModelForCausalLM.from_pretrained(built / name).config.vocab_size == tokens
