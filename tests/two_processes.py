"""A function in two processes beside the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp


def in_two_processes(function: Callable[..., None], *given: Any) -> None:
    """``function(number, *given)`` for the numbers 0 and 1. Raises what one of them raises.

    Not by a fork: locks of the threads that other tests have left would be held in it forever.
    """
    mp.start_processes(function, given, nprocs=2, start_method="spawn")
