"""The doorbell: a Celery message that carries one id, of a job or of a question. Plain values, no Celery import.

The database row is the job. A bell that is lost, doubled or late changes nothing but the waiting time.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

TASK_NAME = "opd.run_job"
"""The task takes one positional argument, the job id."""
QUESTION_TASK = "opd.answer_question"
"""The same with a question's id."""
ASIDE = "_aside"
"""The queue of questions: a worker is busy for the whole of a training job, so others answer. No job can name it."""


def broker_url(redis_url: str) -> str:
    """redis-py's URL form -> kombu's. They differ for unix sockets only."""
    parts = urlsplit(redis_url)
    if parts.scheme in ("redis", "rediss"):
        return redis_url
    if parts.scheme != "unix":
        raise ValueError("OPD_REDIS_URL: use redis://, rediss:// or unix:///path?db=0")
    query = dict(parse_qsl(parts.query))
    # kombu reads the credentials of a socket URL from its authority, never from the query.
    user = query.pop("username", unquote(parts.username or ""))
    password = query.pop("password", unquote(parts.password or ""))
    authority = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    options = urlencode({"virtual_host": query.pop("db", "0"), **query})
    return f"redis+socket://{authority}{parts.path}?{options}"


def celery_config(redis_url: str, *, drain_s: float = 60.0) -> dict[str, Any]:
    """Celery settings shared by the API (which rings) and the worker (which answers)."""
    return {
        "broker_url": broker_url(redis_url),
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",
        # Early ack: the lease in the database, not the message, says who works on a job.
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "task_default_queue": "cpu",
        # Any queue name that a spec may carry is a queue; specs are checked at the door.
        "task_create_missing_queues": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": "opd:",
        },
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": drain_s,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
    }
