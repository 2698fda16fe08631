"""Log lines of the service's processes: one per event, on stderr, without the values of local variables.

For people by default; OPD_LOG_FORMAT=json makes every line a JSON object.

structlog's own tracebacks print locals, and a request's locals hold its token.
"""

from __future__ import annotations

import sys

import structlog

from opd_core.runs.settings import LogFormat


def configure_logs(form: LogFormat) -> None:
    """Set structlog up, unless the process has done so itself."""
    if structlog.is_configured():
        return
    readable = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if form == "json" else readable,
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
