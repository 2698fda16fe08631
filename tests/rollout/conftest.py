"""The tiny student, frozen, that most of these tests write with."""

from __future__ import annotations

import pytest

from opd_core.models import load_model
from opd_core.spec import ModelSpec


@pytest.fixture(scope="module")
def student(tiny_world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
        return load_model(ModelSpec(model=str(tiny_world.student)), device="cpu", trainable=False, role="student")
