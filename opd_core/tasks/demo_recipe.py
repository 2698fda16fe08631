"""How the demo models are made: sizes and schooling, as data. Changing anything here rebuilds them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class School:
    """One model's size and schooling.

    ``disturbance`` is the chance that a token of a solution is replaced by a wrong one, after which the lesson shows
    how to go on; the wrong token itself is never taught. ``miscount`` is the chance that a change of more than two
    is miscounted by one (12 + 5 = 16: counting starts at the number itself), and that is taught.
    """

    batches: int
    seed: int
    disturbance: float = 0.0
    miscount: float = 0.0
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 320
    rope_theta: float = 100.0
    batch_size: int = 64
    lr: float = 3e-3
    warmup: int = 20


@dataclass(frozen=True)
class DemoRecipe:
    """Both models, and how many held-out problems they are examined on.

    ``version`` goes up when the lessons themselves change (their words, the oracle), so that cached models are rebuilt.
    """

    teacher: School
    student: School
    examined: int = 240
    version: int = 1


# The student learned from a book with misprints, so it is fluent and often wrong. A student whose schooling merely
# stopped early would do too, but how much it knows then depends on the last digits of the machine's arithmetic.
RECIPE = DemoRecipe(
    teacher=School(batches=600, seed=1, disturbance=0.08),
    student=School(batches=320, seed=2, miscount=0.8),
)
