"""A typed client for Python users, the terminal and the dashboard.

    client = Client()                      # OPD_API_URL, OPD_API_TOKEN or the token file of an embedded service
    job = client.submit({"name": ...})
    for id, type, data in client.stream(job.id): ...

Requests are repeated when the connection fails; creating a job carries one Idempotency-Key, so a repeated
submission makes one job.
"""

from __future__ import annotations

from api.client.catalogue import Catalogue
from api.client.checkpoints import Checkpoints
from api.client.comparison import Comparisons
from api.client.errors import ApiError
from api.client.jobs import Jobs
from api.client.questions import Questions
from api.client.records import Records
from api.client.stream import Stream

__all__ = ["ApiError", "Client"]


class Client(Jobs, Stream, Records, Checkpoints, Comparisons, Questions, Catalogue):
    """Talks to one service. Usable as a context manager; safe to share between threads."""
