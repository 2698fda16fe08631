"""The queue door: ``celery -A worker.app worker -c 1 -Q cpu``. One worker process is one training slot.

Questions about runs are answered by workers of their own queue: see worker/questions.py.

Shutdown: SIGTERM is Celery's warm shutdown, which waits for the running task. The news is passed on to the supervisor,
which lets the trainer save a checkpoint and gives the job back within OPD_DRAIN_S, so the wait is short. (Celery's soft
shutdown would sleep for its whole time-out even when the task is done.)
"""

from __future__ import annotations

import os
import platform
import socket
from typing import Any

from celery import Celery, bootsteps, signals

from opd_core.runs import database
from opd_core.runs.logs import configure_logs
from opd_core.runs.queue import celery_config
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from worker.slot import SLOT

HEARTBEAT_S = 5.0

app = Celery("opd", include=["worker.tasks", "worker.questions"])


def configure(settings: Settings) -> None:
    """Apply the queue's configuration. Without a broker the app can be imported but not started."""
    if settings.redis_url is not None:
        app.conf.update(celery_config(settings.redis_url, drain_s=settings.drain_s))
    app.conf.worker_redirect_stdouts = False  # our log lines carry their own time and level


configure(Settings())


class Heartbeat(bootsteps.StartStopStep):
    """This worker's row in the records. A timer of Celery's own loop: a thread would not survive forking a pool."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None
        self._store: RunStore | None = None

    def start(self, consumer: Any) -> None:
        self._store = RunStore(database.connect(Settings().database_url))
        self._beat(consumer)
        self._timer = consumer.timer.call_repeatedly(HEARTBEAT_S, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        del consumer
        if self._timer is not None:
            self._timer.cancel()
        if self._store is not None:
            self._store.engine.dispose()

    def _beat(self, consumer: Any) -> None:
        assert self._store is not None
        self._store.heartbeat_worker(
            consumer.hostname,
            socket.gethostname(),
            sorted(queue.name for queue in consumer.app.amqp.queues.consume_from.values()),
            os.getpid(),
            SLOT.job(),
            {"platform": platform.platform(terse=True), "cores": os.cpu_count()},
        )


app.steps["consumer"].add(Heartbeat)


@signals.celeryd_init.connect
def _check(conf: Any, options: dict[str, Any] | None = None, **_: Any) -> None:
    settings = Settings()
    configure_logs(settings.log_format)
    if settings.redis_url is None:
        raise SystemExit("OPD_REDIS_URL is not set: the worker needs the broker's address (`opd up` sets it).")
    if (options or {}).get("concurrency") not in (None, 1, "1"):
        raise SystemExit("One worker process is one training slot: use -c 1, and start more workers for more slots.")
    conf.worker_concurrency = 1


@signals.worker_init.connect
def _migrate(**_: Any) -> None:
    engine = database.connect(Settings().database_url)
    database.migrate(engine)
    engine.dispose()  # before the pool forks


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    SLOT.drain()


@signals.worker_shutdown.connect
def _say_goodbye(sender: Any, **_: Any) -> None:
    engine = database.connect(Settings().database_url)
    RunStore(engine).remove_worker(sender.hostname)
    engine.dispose()
