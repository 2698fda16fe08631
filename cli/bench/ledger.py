"""The output directory: which job stands for which cell, and the records of what has ended.

plan.json         the plan as it was run last
jobs.json         cell key -> job id
runs/LABEL.json   one record for each run that has ended; remove a file to have that run again
kept.json         the jobs that ever had a record: where it is gone, another job is wanted
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cli.bench.cells import Cell
from cli.bench.plan import Plan
from cli.bench.record import Record
from opd_core.spec import UserError


class Ledger:
    """One output directory. Every file appears at once or not at all."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self._runs = folder / "runs"
        known = self._read("plan.json")
        if known is not None and (name := known["name"]) != plan.name:
            raise UserError(f"--out: {str(folder)!r} holds the plan '{name}'; choose another directory", param="out")
        self._runs.mkdir(parents=True, exist_ok=True)
        self.write("plan.json", plan.model_dump_json(indent=1))
        self.jobs: dict[str, str] = self._read("jobs.json") or {}
        self.kept: set[str] = set(self._read("kept.json") or ())

    def set_job(self, cell: Cell, job: str | None) -> None:
        """Remember the job of a cell; None forgets it."""
        if job is None:
            self.jobs.pop(cell.key, None)
        else:
            self.jobs[cell.key] = job
        self.write("jobs.json", json.dumps(self.jobs, indent=1))

    def keep(self, record: Record) -> None:
        """Keep the record of a run that has ended."""
        self.write(f"runs/{record.label}.json", record.model_dump_json(indent=1))
        self.remember([record])

    def remember(self, records: Iterable[Record]) -> None:
        """These records are there; whoever died behind the last one had not noted it."""
        if found := {record.job for record in records if record.job} - self.kept:
            self.kept |= found
            self.write("kept.json", json.dumps(sorted(self.kept), indent=1))

    def records(self) -> list[Record]:
        """Everything that has ended, by file name. Raises UserError for a file that is no record."""
        found = []
        for file in sorted(self._runs.glob("*.json")):
            try:
                found.append(Record.model_validate_json(file.read_bytes()))
            except ValidationError as error:
                raise UserError(f"--out: {str(file)!r} is no record of a run: {error.errors()[0]['msg']}") from error
        return found

    def _read(self, name: str) -> Any:
        """What a JSON file holds, None where there is none."""
        file = self.folder / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def write(self, name: str, content: str) -> None:
        """Write a text file, whole."""
        target = self.folder / name
        temporary = target.with_name(f".{target.name}.tmp")
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(target)


def done(records: list[Record], cells: list[Cell]) -> dict[str, Record]:
    """The records that are of these very cells, by key."""
    wanted = {cell.key for cell in cells}
    return {record.key: record for record in records if record.key in wanted}


def as_json(value: Any) -> str:
    """Strict JSON: no NaN."""
    return json.dumps(value, indent=1, allow_nan=False)
