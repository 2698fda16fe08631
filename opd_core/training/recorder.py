"""Token records of a run: said at once to whoever watches, written to its files some steps at a time."""

from __future__ import annotations

import base64
from typing import NamedTuple

import pyarrow as pa

from opd_core.runs import profiles, records, wire
from opd_core.runs.artifacts import RunFiles
from opd_core.training.messages import Emit
from opd_core.training.step import Step

# Recorded steps per Parquet part: fresh enough to browse, few enough files.
_STEPS_PER_PART = 20
_TOKENS_PER_PART = 100_000  # they wait in memory


class Recorder:
    """Before a checkpoint comes ``write``: a resume starts behind it and never records these steps again."""

    def __init__(self, files: RunFiles, *, attempt: int, emit: Emit) -> None:
        self._files, self._attempt, self._emit = files, attempt, emit
        self._unwritten: list[_Recorded] = []
        self._tokens = 0

    def take(self, step: int, result: Step) -> None:
        """What step ``step`` recorded, if anything."""
        if not result.records:
            return
        # Tables, once for both uses; and a search for garbage need not go through thousands of lists that wait.
        recorded = _Recorded(step, records.to_table(result.records), profiles.to_table(result.profile))
        payload, spread = wire.encode(recorded.sequences), wire.encode(recorded.profile)
        self._emit({"type": "records", "step": step, "payload": _ascii(payload), "profile": _ascii(spread)})
        self._unwritten.append(recorded)
        self._tokens += sum(row["length"] for row in result.records)
        if len(self._unwritten) >= _STEPS_PER_PART or self._tokens >= _TOKENS_PER_PART:
            self.write()

    def write(self) -> None:
        """Put everything to rest."""
        if not self._unwritten:
            return
        steps, sequences, spread = zip(*self._unwritten, strict=True)
        records.write_tables(self._files, sequences, steps[0], steps[-1], self._attempt)
        profiles.write_tables(self._files, spread, steps[0], steps[-1], self._attempt)
        self._unwritten, self._tokens = [], 0


class _Recorded(NamedTuple):
    step: int
    sequences: pa.Table
    profile: pa.Table


def _ascii(payload: bytes) -> str:
    return base64.b64encode(payload).decode()
