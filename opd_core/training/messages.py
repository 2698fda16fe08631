"""What a run says while it runs: plain dicts with a type, one JSON line each when a supervisor listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]


def phase(words: str) -> dict[str, Any]:
    """What the run is doing now. "training" and "finalizing" also move the job's status."""
    return {"type": "phase", "phase": words}


def event(name: str, message: str, *, level: str = "info", **data: Any) -> dict[str, Any]:
    """Something for the durable log of the job."""
    return {"type": "event", "level": level, "name": name, "message": message, "data": data}


def warning(message: str) -> dict[str, Any]:
    """Something the user should know when reading the result."""
    return {"type": "warning", "message": message}


def error(code: str, message: str, *, param: str | None, category: str, retryable: bool) -> dict[str, Any]:
    """Why the run ended without a result."""
    body = {"code": code, "message": message, "param": param, "category": category, "retryable": retryable}
    return {"type": "error", "error": body}
