"""The short form of the chaos harness: every change meets some faults. ``make chaos`` is the full form."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.run import Campaign

pytestmark = [pytest.mark.service, pytest.mark.timeout(1500)]


def test_nothing_is_lost_and_nothing_counts_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPD_")]:
        monkeypatch.delenv(name)
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(2**31)))
    result = Campaign(faults=4, jobs=2, seed=seed, specs=1, at_once=2).run(tmp_path)
    assert result["findings"] == [], f"CHAOS_SEED={seed}"
    assert result["faults"] == 4
    assert result["jobs"] >= 2
