"""A real service for the tests of this folder, with the tiny models allowed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cli.running import Running, running_service
from tests.tiny import TinyWorld


@pytest.fixture(scope="module", autouse=True)
def no_settings_of_ours() -> Iterator[None]:
    """The developer's own OPD_* variables stay out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("OPD_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def running(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service for all tests that leave it running. It survives one death of each part, so one test may kill one."""
    with running_service(tmp_path_factory.mktemp("home"), tiny_world) as service:
        yield service
