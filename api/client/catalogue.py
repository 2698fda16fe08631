"""What a spec may name, and who works on it."""

from __future__ import annotations

from api import schemas as s
from api.client.errors import raise_for
from api.client.transport import Transport


class Catalogue(Transport):
    """Recipes, models, tasks, workers, queues."""

    def recipes(self) -> s.Page[s.Recipe]:
        """All recipes."""
        return self._get(s.Page[s.Recipe], "/v1/recipes")

    def recipe(self, name: str) -> s.Recipe:
        """One recipe."""
        return self._get(s.Recipe, f"/v1/recipes/{name}")

    def schema(self) -> s.SpecSchema:
        """The fields of a job spec, as JSON schemas."""
        return self._get(s.SpecSchema, "/v1/schema")

    def models(self) -> s.Page[s.Model]:
        """Models that a spec may name."""
        return self._get(s.Page[s.Model], "/v1/models")

    def tasks(self) -> s.Page[s.Task]:
        """Built-in tasks."""
        return self._get(s.Page[s.Task], "/v1/tasks")

    def workers(self) -> s.Page[s.Worker]:
        """Workers and what they are doing."""
        return self._get(s.Page[s.Worker], "/v1/workers")

    def queues(self) -> s.Page[s.Queue]:
        """Queues with what waits in them and who serves them."""
        return self._get(s.Page[s.Queue], "/v1/queues")

    def recent_attempts(self, limit: int = 20, *, failed: bool = False) -> s.Page[s.Attempt]:
        """Starts of all jobs, newest first; ``failed`` = only those that ended badly."""
        return self._get(s.Page[s.Attempt], "/v1/attempts", limit=limit, failed=failed or None)

    def ready(self) -> s.Readiness:
        """What works and what is missing. One request, no retries: an unready service answers too."""
        response = self._http.get("/readyz")
        if response.status_code not in (200, 503):
            raise_for(response)
        return self._as(s.Readiness, response)
