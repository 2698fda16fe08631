"""The processes of one job: which of them this is, and what they tell each other.

Only tensors and JSON travel between them, never pickles. Every process has to make the same calls in the same order:
each of them waits for all.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Within a step: how far apart the processes may be before one counts as stuck. A dead one is noticed at once (team.py).
_WITHIN_A_STEP = timedelta(hours=1)
# Between steps the leader evaluates, saves and reports alone, for as long as that takes.
_BETWEEN_STEPS = timedelta(days=14)
_CPU = torch.device("cpu")
# What the leader may tell the others beside the step that comes next.
OVER: dict[str, Any] = {"over": True}
GATHER: dict[str, Any] = {"gather": True}  # their parts of the student's weights and of the optimizer's state


@dataclass(frozen=True)
class Ranks:
    """Process ``number`` of ``count``, numbered from 0: the leader, which alone speaks and writes files."""

    number: int = 0
    count: int = 1
    device: torch.device = _CPU  # of what is exchanged within a step
    _orders: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        return self.number == 0

    def gather(self, rows: Tensor) -> Tensor:
        """[n, ...] of every process, n its own, as one tensor in the order of the processes: the same bits for all."""
        if self.count == 1:
            return rows
        headers = [part.tolist() for part in self._of_all(torch.tensor([len(rows), rows.itemsize], device=self.device))]
        counts = [count for count, _ in headers]
        if len({size for _, size in headers}) > 1:  # a teacher that was asked nothing here answers zeros in float32
            rows = rows.float()
        # As bytes: not every backend knows every type.
        plain = rows.detach().contiguous().reshape(len(rows), math.prod(rows.shape[1:]))
        sent = plain.view(torch.uint8) if plain.dtype != torch.bool else plain.to(torch.uint8)
        padded = torch.nn.functional.pad(sent, (0, 0, 0, max(counts) - len(sent)))
        parts = [part[:count] for part, count in zip(self._of_all(padded), counts, strict=True)]
        joined = torch.cat(parts)
        typed = joined.bool() if rows.dtype == torch.bool else joined.view(rows.dtype)
        return typed.reshape(len(joined), *rows.shape[1:])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes the sum over all processes, in place and with the same bits for all."""
        if self.count == 1:
            return
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()

    def total(self, *numbers: float) -> list[float]:
        """Each number summed over all processes."""
        return [sum(column) for column in zip(*self._numbers(numbers), strict=True)]

    def most(self, *numbers: float) -> list[float]:
        """The largest of all processes for each number."""
        return [max(column) for column in zip(*self._numbers(numbers), strict=True)]

    def tell(self, words: dict[str, Any]) -> dict[str, Any]:
        """The leader's words, at every process; what the others give is not looked at. They wait without limit."""
        if self.count == 1:
            return words
        said = torch.frombuffer(bytearray(json.dumps(words).encode()), dtype=torch.uint8)
        length = torch.tensor([len(said)])
        dist.broadcast(length, 0, group=self._orders)
        if not self.leads:
            said = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(said, 0, group=self._orders)
        heard: dict[str, Any] = json.loads(bytes(said.tolist()))
        return heard

    def _numbers(self, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of every process, in float64."""
        if self.count == 1:
            return [list(numbers)]
        return [row.tolist() for row in self._of_all(torch.tensor(numbers, dtype=torch.float64, device=self.device))]

    def _of_all(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(found, tensor.contiguous())
        return found


ALONE = Ranks()
"""A job of one process."""


@contextmanager
def joined(number: int, count: int, folder: Path, device: torch.device) -> Iterator[Ranks]:
    """Meet the other processes over a file in ``folder``. On a GPU each has its own; all talk on this machine only."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.FileStore(str(folder / "meeting"), count),
        rank=number,
        world_size=count,
        timeout=_WITHIN_A_STEP,
    )
    try:
        yield Ranks(number, count, device, dist.new_group(backend="gloo", timeout=_BETWEEN_STEPS))
    finally:
        dist.destroy_process_group()
