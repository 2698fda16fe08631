"""Prompts, answers and verifiers: files of the user's, and the built-in demo task."""

from opd_core.tasks.contexts import check_context
from opd_core.tasks.load import load_task
from opd_core.tasks.task import Problem, Task

__all__ = ["Problem", "Task", "check_context", "load_task"]
