"""Who writes: the states of training are those that the student visits."""

from opd_core.rollout.fixed import FixedEngine
from opd_core.rollout.handover import AdapterHandover, WholeHandover
from opd_core.rollout.noise import request_seeds, uniform_noise
from opd_core.rollout.rollouts import Rollouts, imitated, join
from opd_core.rollout.served import ServedStudent
from opd_core.rollout.shared_prompts import can_share, visit_sharing
from opd_core.rollout.states import Visited, by_length, completion_hidden, micro_batches, visit, visit_all
from opd_core.rollout.writer import Companion, write

__all__ = [
    "AdapterHandover",
    "Companion",
    "FixedEngine",
    "Rollouts",
    "ServedStudent",
    "Visited",
    "WholeHandover",
    "by_length",
    "can_share",
    "completion_hidden",
    "imitated",
    "join",
    "micro_batches",
    "request_seeds",
    "uniform_noise",
    "visit",
    "visit_all",
    "visit_sharing",
    "write",
]
