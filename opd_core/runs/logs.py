"""Log lines of the service's processes: one per event, on stderr, without the values of local variables.

structlog's own tracebacks print locals, and a request's locals hold its token.
"""

from __future__ import annotations

import sys

import structlog


def configure_logs() -> None:
    """Set structlog up, unless the process has done so itself."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
