"""Who writes: the states of training are those that the student visits."""

from opd_core.rollout.noise import uniform_noise
from opd_core.rollout.states import by_length, completion_hidden, micro_batches
from opd_core.rollout.writer import Rollouts, write

__all__ = ["Rollouts", "by_length", "completion_hidden", "micro_batches", "uniform_noise", "write"]
