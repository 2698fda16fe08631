"""The built-in demo/... models: built on first use, cached, ordinary Hugging Face directories.

They come in sets, a student and its teachers; whoever names one model gets the set built.

python -m opd_core.tasks.demo_models [HOME] [SET ...]       sets: word-problems (the default), synonyms, detours, tools
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from opd_core.runs.settings import Settings
from opd_core.tasks.demo_recipe import DETOURS, RECIPE, SYNONYMS, TOOLS, DemoRecipe

Progress = Callable[[str, int, int], None]

RECIPES = {recipe.course: recipe for recipe in (RECIPE, SYNONYMS, DETOURS, TOOLS)}
"""Sets by their course."""


def _named() -> dict[str, tuple[DemoRecipe, str]]:
    plain = {f"demo/{one}": (RECIPE, one) for one in ("student", "teacher")}
    others = {f"demo/{r.course}-{one}": (r, one) for r in (SYNONYMS, DETOURS, TOOLS) for one in r.schools}
    return {**plain, **others}


NAMES = _named()
"""Every built-in model: its set, and its folder there."""


def locate(home: Path, name: str) -> Path:
    """The directory of a built-in model, its set built if need be."""
    recipe, folder = NAMES[name]
    return ensure(home, None, recipe) / folder


def missing(home: Path, models: Iterable[str]) -> list[DemoRecipe]:
    """The sets of these models (other models are passed over) that are not built yet."""
    wanted = {NAMES[model][0]: None for model in models if model in NAMES}
    return [recipe for recipe in wanted if not is_built(home, recipe)]


def ensure_all(home: Path, models: Iterable[str], progress: Progress | None = None) -> None:
    """Build what is missing for these models."""
    for recipe in missing(home, models):
        ensure(home, progress, recipe)


def directory(home: Path, recipe: DemoRecipe = RECIPE) -> Path:
    """Where the models of a recipe lie: the name changes with the recipe, so that a changed one is built anew."""
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode()).hexdigest()[:10]
    return Path(home) / "models" / recipe.folder / digest


def is_built(home: Path, recipe: DemoRecipe = RECIPE) -> bool:
    """Whether the models of a set are there."""
    return directory(home, recipe).is_dir()


def ensure(home: Path, progress: Progress | None = None, recipe: DemoRecipe = RECIPE) -> Path:
    """Build a set unless it is there; returns the directory that holds ``student/``, ``teacher/``...

    ``progress(label, done, total)`` is called after every training batch. Safe against concurrent builders (the
    others wait) and interruptions (a finished directory appears at once or not at all).
    """
    target = directory(home, recipe)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f"{target.name}.lock"):
        if target.is_dir():
            return target
        for leftover in target.parent.glob(f"{target.name}.*.tmp"):
            shutil.rmtree(leftover)  # of a builder that was killed: whoever holds the lock is the only builder
        from opd_core.tasks.demo_school import build  # torch only where something is trained

        working = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".tmp", dir=target.parent))
        try:
            build(working, recipe, progress or _silent)
            working.chmod(0o755)  # mkdtemp's 0700 would lock out workers that run as other users
            working.replace(target)
        except BaseException:
            shutil.rmtree(working, ignore_errors=True)
            raise
    return target


def _silent(*_: object) -> None:
    """Progress that nobody watches."""


def main() -> None:
    """Build sets and print what they can."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", nargs="?", type=Path, help="default: OPD_HOME")
    parser.add_argument("sets", nargs="*", choices=RECIPES, metavar="SET")
    arguments = parser.parse_args()

    def show(label: str, done: int, total: int) -> None:
        sys.stderr.write(f"\r{label}: {done}/{total} ")

    for course in arguments.sets or [RECIPE.course]:
        built = ensure(arguments.home or Settings().home, show, RECIPES[course])
        sys.stderr.write("\n")
        sys.stdout.write(f"{built}\n{(built / 'build.json').read_text()}\n")


if __name__ == "__main__":
    main()
