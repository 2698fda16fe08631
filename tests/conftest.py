"""Small real models and data, made once per test session: nothing is downloaded."""

from __future__ import annotations

import os

import pytest

from tests.tiny import TinyWorld, make_tiny_world, tiny_body

# Spinning OpenMP threads beside a second busy process collapse on two cores.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Random student and teacher of different widths, a tokenizer trained here, additions as JSONL."""
    return make_tiny_world(tmp_path_factory.mktemp("tiny-world"))


@pytest.fixture
def tiny_spec(tiny_world: TinyWorld, monkeypatch: pytest.MonkeyPatch):
    """A factory of job specs on the tiny world: keyword arguments replace whole sections."""
    from opd_core.spec import JobSpec

    monkeypatch.setenv("OPD_HOME", str(tiny_world.root / "home"))
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
    monkeypatch.setenv("OPD_DATA_ROOTS", str(tiny_world.root))

    def make(**sections) -> JobSpec:
        return JobSpec.model_validate(tiny_body(tiny_world, **sections))

    return make
