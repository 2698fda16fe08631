"""The built-in models demo/teacher and demo/student: built on first use, cached, ordinary Hugging Face directories.

python -m opd_core.tasks.demo_models [HOME]
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from opd_core.runs.settings import Settings
from opd_core.tasks.demo_recipe import RECIPE, DemoRecipe

NAMES = ("student", "teacher")

Progress = Callable[[str, int, int], None]


def directory(home: Path, recipe: DemoRecipe = RECIPE) -> Path:
    """Where the models of a recipe lie: the name changes with the recipe, so that a changed one is built anew."""
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode()).hexdigest()[:10]
    return Path(home) / "models" / "demo" / digest


def is_built(home: Path, recipe: DemoRecipe = RECIPE) -> bool:
    """Whether both models are there."""
    return directory(home, recipe).is_dir()


def ensure(home: Path, progress: Progress | None = None, recipe: DemoRecipe = RECIPE) -> Path:
    """Build both models unless they are there; returns the directory that holds ``student/`` and ``teacher/``.

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
    """Build the models below OPD_HOME (or the directory given) and print what they can."""
    home = Path(sys.argv[1]) if len(sys.argv) > 1 else Settings().home

    def show(label: str, done: int, total: int) -> None:
        sys.stderr.write(f"\r{label}: {done}/{total} ")

    built = ensure(home, show)
    sys.stderr.write("\n")
    sys.stdout.write(f"{built}\n{(built / 'build.json').read_text()}\n")


if __name__ == "__main__":
    main()
