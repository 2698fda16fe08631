"""Settles what nobody else will: unheard bells, expired leases, jobs lost too often, cancels without a worker, the same
for questions, and answers that nobody needs any more.

Runs inside the API by default, or alone with ``python -m api.reconciler``; any number may run at the same time.
"""

from __future__ import annotations

import signal
import threading

import structlog

from api.bell import Bell
from api.services import Services
from opd_core.runs.logs import configure_logs
from opd_core.runs.questions import remove_files
from opd_core.runs.queue import ASIDE, QUESTION_TASK
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore

log = structlog.get_logger()


def reconcile(store: RunStore, bell: Bell, ring_after_s: float) -> int:
    """One round; how many bells were rung."""
    rung = 0
    for job_id, queue in store.due(ring_after_s):
        if not bell.ring(job_id, queue):
            break  # the broker is away for all of them; the next round tries again
        store.mark_rung(job_id)
        rung += 1
    return rung


def reconcile_questions(services: Services) -> int:
    """The same for questions; old ones are removed."""
    questions, rung = services.questions, 0
    for question_id in questions.due(services.settings.ring_after_s):
        if not services.bell.ring(question_id, ASIDE, QUESTION_TASK):
            break
        questions.mark_rung(question_id)
        rung += 1
    for old in questions.outdated():
        remove_files(services.files(old.job_id), old.id)
        questions.remove(old.id)
    return rung


def run(services: Services) -> None:
    """Rounds until ``services.stopping``."""
    settings = services.settings
    while not services.stopping.wait(settings.reconcile_every_s):
        try:
            reconcile(services.store, services.bell, settings.ring_after_s)
            reconcile_questions(services)
        except Exception:
            # Whatever it was (a database that is away comes back): without this loop no lost job is ever found.
            log.exception("reconcile_failed")


def start(services: Services) -> threading.Thread:
    """Run in a background thread."""
    thread = threading.Thread(target=run, args=(services,), name="reconciler", daemon=True)
    thread.start()
    return thread


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings()
    configure_logs(settings.log_format)
    services = Services(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: services.stopping.set())
    log.info("reconciler_started", every_s=services.settings.reconcile_every_s)
    run(services)
    services.close()


if __name__ == "__main__":
    main()
