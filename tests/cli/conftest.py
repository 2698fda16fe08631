"""A clean environment and a temporary home for every command-line test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """OPD_HOME, with no other setting of ours in the environment."""
    for name in list(os.environ):
        if name.startswith("OPD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPD_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path
