"""Commands that are shown to be pasted: they must work in the reader's shell, wherever that stands."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib import resources
from pathlib import Path

import yaml

DEMO_SPEC = Path(str(resources.files("cli").joinpath("demo.yaml")))


def program(name: str) -> str:
    """``opd`` or ``python`` of this environment: by name where PATH leads to it, else by its path."""
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found is not None and Path(found) == ours else shlex.quote(str(ours))


def demo_file() -> str:
    """The demo job's spec file: the checkout's if this is one, else the packaged copy."""
    here = Path("examples/demo.yaml")
    return str(here) if here.is_file() else shlex.quote(str(DEMO_SPEC))


def demo_body() -> str:
    """The demo job as curl's ``-d`` argument."""
    here = Path("examples/demo.json")
    if here.is_file():
        return f"@{here}"
    return shlex.quote(json.dumps(yaml.safe_load(DEMO_SPEC.read_text(encoding="utf-8")), separators=(",", ":")))
