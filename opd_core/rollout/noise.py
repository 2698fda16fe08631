"""Counter-based chance: one uniform number per (seed, step, prompt, sample, position), and nothing else.

A rollout therefore depends neither on how many others ran before it nor on the batch it is in, and a resumed run draws
what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def uniform_noise(seed: int, step: int, rows: list[tuple[int, int]], length: int) -> Tensor:
    """Uniform numbers in [0, 1), float64 [len(rows), length], one row per (prompt id, sample index)."""
    noise = np.empty((len(rows), length))
    for i, (prompt, sample) in enumerate(rows):
        sequence = np.random.SeedSequence((seed, step, prompt, sample))
        noise[i] = np.random.Generator(np.random.Philox(sequence)).random(length)
    return torch.from_numpy(noise)


def request_seeds(seed: int, step: int, rows: list[tuple[int, int]]) -> list[int]:
    """One seed in [0, 2^63) for each (prompt id, sample index), for a server that draws its own chances."""
    return [int(np.random.SeedSequence((seed, step, *row)).generate_state(1, np.uint64)[0] >> 1) for row in rows]
