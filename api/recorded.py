"""What a run recorded of its tokens, wherever it is: in the live stream while it is fresh, in Parquet once at rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import redis
import structlog

from api.problems import not_found
from api.services import Services
from opd_core.runs import parts, profiles, records
from opd_core.runs.records import Recorded, Row
from opd_core.runs.rows import Job

T = TypeVar("T")

MAX_TOKENS = 250_000
"""One answer looks at about this many tokens; of a longer range it takes every k-th step."""

log = structlog.get_logger()


class Selection(NamedTuple):
    """Records between two steps: those of ``read`` steps, out of ``recorded`` ones that have any."""

    table: pa.Table
    first: int
    last: int
    read: int
    recorded: int


class Records:
    """The token records and profiles of one job."""

    def __init__(self, job: Job, services: Services) -> None:
        self._job, self._live = job, services.live
        self._files = services.files(job.id)

    def steps(self) -> dict[int, Recorded]:
        """Step -> how much of it was recorded, by step; tokens are counted once they are at rest."""
        fresh = {step: Recorded(sequences, None) for step, sequences in self._live_steps().items()}
        return dict(sorted({**fresh, **records.recorded_steps(self._files)}.items()))

    def step(self, step: int, columns: Sequence[str]) -> pa.Table:
        """These columns of a step's sequences, by ``n``. Raises a 404 problem when nothing was recorded."""
        table = self._fresh(step)
        table = records.read_table(self._files, step, step, columns) if table is None else table.select(columns)
        if not table.num_rows:
            raise not_found(f"step {step} has no token records", param="step")
        return table.sort_by("n")

    def sequence(self, step: int, n: int) -> Row:
        """One sequence, whole. Raises a 404 problem when there is none."""
        fresh = self._fresh(step)
        row = records.read_sequence(self._files, step, n) if fresh is None else records.row_of(fresh, step, n)
        if row is None:
            self.step(step, ["step", "n"])  # says so if the step has no records at all
            raise not_found(f"step {step} has no recorded sequence {n}", param="n")
        return row

    def many(self, first: int, last: int, columns: Sequence[str]) -> Selection:
        """These columns over a range of steps, both ends included.

        A long range is thinned to every k-th step, newest first, so that about MAX_TOKENS tokens are read.
        """
        found = {step: recorded for step, recorded in self.steps().items() if first <= step <= last}
        tokens = sum(recorded.tokens or 0 for recorded in found.values())
        every = max(1, -(-tokens // MAX_TOKENS))
        chosen = sorted(sorted(found, reverse=True)[::every])
        columns = list(dict.fromkeys(["step", "n", "attempt", *columns]))
        spans = [(first, last)] if every == 1 else [(step, step) for step in chosen if found[step].tokens]
        tables = [records.read_table(self._files, *span, columns) for span in spans]
        for step in chosen:
            if found[step].tokens is None and (fresh := self._fresh(step)) is not None:
                tables.append(fresh.select(columns))
        empty = pa.schema([records.SCHEMA.field(name) for name in columns]).empty_table()
        shown = (chosen[0], chosen[-1]) if chosen else (first, first)
        return Selection(pa.concat_tables([empty, *tables]), *shown, len(chosen), len(found))

    def profiles(self, first: int, last: int, field: str) -> pa.Table:
        """The profiles of one field at steps first..last, by step; columns of ``profiles.SCHEMA``."""
        live = self._live_profiles
        fits = pc.and_(pc.greater_equal(live["step"], first), pc.less_equal(live["step"], last))
        live = live.filter(pc.and_(fits, pc.equal(live["field"], field)))
        at_rest = profiles.read(self._files, first, last, field)
        live = live.filter(pc.invert(pc.is_in(live["step"], at_rest["step"].combine_chunks())))
        return parts.newest(pa.concat_tables([at_rest, live])).sort_by("step")

    def profile_fields(self) -> list[str]:
        """Names of the fields that have profiles."""
        return list(dict.fromkeys([*profiles.fields(self._files), *self._live_profiles["field"].to_pylist()]))

    @cached_property
    def _live_profiles(self) -> pa.Table:
        """Those of the last steps; one request asks for them several times."""
        return self._ask(lambda reader: reader.profiles(self._job.id), profiles.SCHEMA.empty_table())

    def _fresh(self, step: int) -> pa.Table | None:
        return self._ask(lambda reader: reader.read_step(self._job.id, step, self._job.attempt), None)

    def _live_steps(self) -> dict[int, int]:
        return self._ask(lambda reader: reader.steps(self._job.id), {})

    def _ask(self, question: Callable[..., T], otherwise: T) -> T:
        """The live stream's answer; ``otherwise`` when there is no broker or it is away: what is at rest is enough."""
        if self._live is None:
            return otherwise
        try:
            return question(self._live)
        except redis.RedisError as error:
            log.warning("live_records_unreachable", error=type(error).__name__)
            return otherwise
