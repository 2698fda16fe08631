"""Which jobs several processes can share (``resources.processes``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opd_core.spec.errors import UserError

if TYPE_CHECKING:
    from opd_core.spec.job import JobSpec


def check_processes(spec: JobSpec) -> None:
    """Raise UserError where the job's work cannot be split among its processes."""
    processes, prompts = spec.resources.processes, spec.rollout.prompts_per_step
    if processes == 1:
        if spec.resources.sharding != "none":
            raise UserError(
                f"resources.sharding: '{spec.resources.sharding}' spreads the student over the processes of a job, and "
                "resources.processes is 1: ask for 2 or more, or leave it at 'none'",
                param="resources.sharding",
            )
        return
    if prompts < processes:
        raise UserError(
            f"resources.processes: {processes} is more than the {prompts} prompts of a step "
            "(rollout.prompts_per_step), and each process writes for prompts of its own: at most as many are allowed",
            param="resources.processes",
        )
    servers = {
        "teacher": None if spec.teacher is None else spec.teacher.endpoint,
        "rollout": spec.rollout.endpoint,
    }
    for role, server in servers.items():
        if server is not None:
            raise UserError(
                f"resources.processes: {processes} is not possible with a {role} server ({role}.endpoint), which is "
                "asked by one process: 1 is allowed there",
                param="resources.processes",
            )
