"""Room on the disks that a run writes to: below a mark nobody starts, and who runs saves what it has and waits.

A full disk takes everything with it: checkpoints, records, the database. The mark (OPD_DISK_LOW_MB) leaves enough for a
last checkpoint. A start wants a quarter more than the mark, or a job would stop as soon as it has started.
"""

from __future__ import annotations

import shutil

from opd_core.runs.artifacts import local_folder
from opd_core.runs.settings import Settings

_MB = 1_000_000
_TO_START = 1.25

WAITING = "waiting for disk space"


class Disks:
    """The disks of the home and, where they are local, of the artifacts. Both folders need not exist yet."""

    def __init__(self, settings: Settings) -> None:
        self._low_mb = settings.disk_low_mb
        artifacts = local_folder(settings.artifacts_url)
        self._folders = [folder for folder in (settings.home, artifacts) if folder is not None]

    def too_full_to_start(self) -> str | None:
        """A sentence, or None when there is room."""
        return self._short_of(self._low_mb * _TO_START)

    def too_full_to_go_on(self) -> str | None:
        """A sentence, or None when there is room."""
        return self._short_of(self._low_mb)

    def _short_of(self, wanted_mb: float) -> str | None:
        for folder in self._folders if wanted_mb else ():
            there = next(place for place in (folder, *folder.parents) if place.exists())
            free_mb = shutil.disk_usage(there).free / _MB
            if free_mb < wanted_mb:
                return f"{free_mb:.0f} MB are free in {folder}, {wanted_mb:.0f} MB are wanted (OPD_DISK_LOW_MB)"
        return None
