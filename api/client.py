"""A typed client for Python users, the terminal and the dashboard.

    client = Client()                      # OPD_API_URL, OPD_API_TOKEN or the token file of an embedded service
    job = client.submit({"name": ...})
    for id, type, data in client.stream(job.id): ...

Requests are repeated when the connection fails; creating a job carries one Idempotency-Key, so a repeated
submission makes one job.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from api import schemas as s
from opd_core.spec import JobSpec

DEFAULT_URL = "http://127.0.0.1:8321"
_TRIES = 5
_FIRST_PAUSE_S = 0.2
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Answer = TypeVar("Answer", bound=s.Schema)
Spec = JobSpec | Mapping[str, Any]
LiveEvent = tuple[str | None, str, Any]


class ApiError(Exception):
    """The service refused: ``status``, ``type`` (urn:opd:problem:...), ``title``, ``detail`` and ``param``."""

    def __init__(
        self, status: int, type: str, title: str, detail: str, param: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.param = param
        self.request_id = request_id


class Client:
    """Talks to one service. Usable as a context manager; safe to share between threads."""

    def __init__(self, url: str | None = None, token: str | None = None, *, timeout_s: float = 30.0) -> None:
        self.url = (url or os.environ.get("OPD_API_URL") or DEFAULT_URL).rstrip("/")
        token = token or _default_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy from the environment has no business between two processes of one machine.
        trust_env = urlsplit(self.url).hostname not in _LOOPBACK
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=trust_env)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # --- jobs ---------------------------------------------------------------------------------------------------

    def submit(self, spec: Spec, idempotency_key: str | None = None) -> s.Job:
        """Create and queue a job."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._as(s.Job, self._request("POST", "/v1/jobs", json=_plain(spec), headers=headers))

    def validate(self, spec: Spec) -> s.Validation:
        """The spec as it would be trained, with warnings; nothing is created."""
        params = {"validate_only": "true"}
        return self._as(s.Validation, self._request("POST", "/v1/jobs", json=_plain(spec), params=params))

    def job(self, id: str) -> s.Job:
        """A job as it stands."""
        return self._get(s.Job, f"/v1/jobs/{id}")

    def jobs(
        self, limit: int = 20, after: str | None = None, status: str | None = None, name: str | None = None
    ) -> s.Page[s.Job]:
        """Jobs, newest first; ``name`` = part of the name."""
        return self._get(s.Page[s.Job], "/v1/jobs", limit=limit, after=after, status=status, name=name)

    def cancel(self, id: str) -> s.Job:
        """Ask for the job's end. It stops within a step plus a grace."""
        return self._as(s.Job, self._request("POST", f"/v1/jobs/{id}/cancel"))

    def pause(self, id: str) -> s.Job:
        """Ask the job to rest: it saves a checkpoint after its step, and its worker is free."""
        return self._as(s.Job, self._request("POST", f"/v1/jobs/{id}/pause"))

    def resume(self, id: str) -> s.Job:
        """Let a paused job go on from its checkpoint."""
        return self._as(s.Job, self._request("POST", f"/v1/jobs/{id}/resume"))

    def save(self, id: str) -> s.Job:
        """Ask for a checkpoint after the step that is running."""
        return self._as(s.Job, self._request("POST", f"/v1/jobs/{id}/checkpoints"))

    def update(self, id: str, *, name: str | None = None, metadata: Mapping[str, str] | None = None) -> s.Job:
        """Rename a job, replace its metadata."""
        change = {"name": name, "metadata": None if metadata is None else dict(metadata)}
        given = {key: value for key, value in change.items() if value is not None}
        return self._as(s.Job, self._request("PATCH", f"/v1/jobs/{id}", json=given))

    def delete(self, id: str) -> None:
        """Remove a job that has ended: records, files, streams."""
        self._request("DELETE", f"/v1/jobs/{id}")

    def fork(self, id: str, checkpoint: str | None = None, **changes: Any) -> s.Job:
        """A new job like this one whose student starts from one of its checkpoints (default: the newest).

        ``changes`` replace whole sections of the spec, e.g. ``name="again", recipe="gkd"``.
        """
        start = {"job": id, "checkpoint": checkpoint}
        return self.submit({**self.job(id).spec, "from": start, **changes})

    def wait(self, id: str, *, timeout_s: float | None = None, poll_s: float = 1.0) -> s.Job:
        """The job once it has ended. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (job := self.job(id)).terminal:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {id} is still {job.status} after {timeout_s:g} s")
            time.sleep(poll_s)
        return job

    def events(self, id: str, after: int | str | None = None, limit: int = 100) -> s.Page[s.Event]:
        """The audit log behind the sequence number ``after``."""
        return self._get(s.Page[s.Event], f"/v1/jobs/{id}/events", after=after, limit=limit)

    def stream(self, id: str, after: str | None = None, types: Iterable[str] | None = None) -> Iterator[LiveEvent]:
        """Live updates as (id, type, data), the last one of type ``end``.

        Reconnects and goes on behind the last id it saw. Without ``after`` it starts with the present state.
        Raises httpx.TransportError when the service stays away, ApiError when it refuses.
        """
        params = {"types": ",".join(types)} if types else {}
        last, failures = after, 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
            # Keep-alives come every 15 s: a minute of silence is a dead connection.
            timeout = httpx.Timeout(10.0, read=60.0)
            try:
                with self._http.stream(
                    "GET", f"/v1/jobs/{id}/stream", params=params, headers=headers, timeout=timeout
                ) as response:
                    _raise_for(response)
                    for event_id, kind, data in _server_sent_events(response.iter_lines()):
                        failures = 0
                        last = event_id or last
                        yield event_id, kind, data
                        if kind == "end":
                            return
            except httpx.TransportError:
                failures += 1
                if failures >= _TRIES:
                    raise
            except ApiError as error:
                failures += 1
                if error.status < 500 or failures >= _TRIES:
                    raise
            time.sleep(_FIRST_PAUSE_S * 2**failures)

    # --- what a run recorded ------------------------------------------------------------------------------------

    def metrics(
        self, id: str, keys: Iterable[str] | None = None, from_step: int = 0, max_points: int | None = None
    ) -> s.Metrics:
        """Scalars by step, thinned to about ``max_points`` steps."""
        wanted = ",".join(keys) if keys else None
        return self._get(s.Metrics, f"/v1/jobs/{id}/metrics", keys=wanted, from_step=from_step, max_points=max_points)

    def steps(self, id: str) -> s.Page[s.StepSummary]:
        """Steps with recorded sequences."""
        return self._get(s.Page[s.StepSummary], f"/v1/jobs/{id}/steps")

    def sequences(self, id: str, step: int) -> s.SequenceList:
        """Recorded sequences of a step."""
        return self._get(s.SequenceList, f"/v1/jobs/{id}/steps/{step}/sequences")

    def sequence(self, id: str, step: int, n: int) -> s.Sequence:
        """One recorded sequence, token by token."""
        return self._get(s.Sequence, f"/v1/jobs/{id}/steps/{step}/sequences/{n}")

    def routing(
        self,
        id: str,
        from_step: int | None = None,
        to_step: int | None = None,
        rows: int | None = None,
        columns: int | None = None,
    ) -> s.Heatmap:
        """Where the probability of suppressed tokens went: predicted and realised."""
        return self._get(
            s.Heatmap,
            f"/v1/jobs/{id}/heatmaps/routing",
            from_step=from_step,
            to_step=to_step,
            rows=rows,
            columns=columns,
        )

    def returns(
        self,
        id: str,
        field: str | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        rows: int | None = None,
        columns: int | None = None,
    ) -> s.Profile:
        """A quantity (log_ratio, return, advantage, value, kl...) of all tokens by position and step."""
        span = {"from_step": from_step, "to_step": to_step, "rows": rows, "columns": columns}
        return self._get(s.Profile, f"/v1/jobs/{id}/heatmaps/returns", field=field, **span)

    def gates(
        self,
        id: str,
        gate: str | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        rows: int | None = None,
        columns: int | None = None,
    ) -> s.Gates:
        """What one gate (None: all together) let through, by position and step and token by token."""
        span = {"from_step": from_step, "to_step": to_step, "rows": rows, "columns": columns}
        return self._get(s.Gates, f"/v1/jobs/{id}/heatmaps/gates", gate=gate, **span)

    def suppressed(
        self, id: str, token: int, from_step: int | None = None, to_step: int | None = None, limit: int | None = None
    ) -> s.Occurrences:
        """Where a token was written and suppressed: step, sequence and position."""
        span = {"from_step": from_step, "to_step": to_step, "limit": limit}
        return self._get(s.Occurrences, f"/v1/jobs/{id}/tokens/{token}/suppressed", **span)

    def health(self, id: str) -> s.Health:
        """The diagnostics A1 to A11 as lights, with their values over time."""
        return self._get(s.Health, f"/v1/jobs/{id}/health")

    def checkpoints(self, id: str) -> s.Page[s.Checkpoint]:
        """Complete checkpoints, oldest first."""
        return self._get(s.Page[s.Checkpoint], f"/v1/jobs/{id}/checkpoints")

    def download(self, id: str, checkpoint_id: str, directory: str | os.PathLike[str]) -> list[Path]:
        """Download a checkpoint's files into a directory, checking size and sha256; returns their paths.

        Raises OSError when what arrived is not what was listed.
        """
        checkpoint = self._get(s.Checkpoint, f"/v1/jobs/{id}/checkpoints/{checkpoint_id}")
        return [self._download(id, checkpoint_id, file, Path(directory)) for file in checkpoint.files]

    def _download(self, id: str, checkpoint_id: str, file: s.CheckpointFile, directory: Path) -> Path:
        name = PurePosixPath(file.name)
        if name.is_absolute() or ".." in name.parts or "\\" in file.name:
            raise OSError(f"the service listed a file outside the directory: {file.name!r}")
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.part")
        digest = hashlib.sha256()
        with self._http.stream("GET", f"/v1/jobs/{id}/checkpoints/{checkpoint_id}/files/{file.id}") as response:
            _raise_for(response)
            with partial.open("wb") as sink:
                for chunk in response.iter_bytes():
                    digest.update(chunk)
                    sink.write(chunk)
        if partial.stat().st_size != file.size or digest.hexdigest() != file.sha256:
            partial.unlink()
            raise OSError(f"{file.name} arrived damaged; download it again")
        partial.replace(target)
        return target

    def attempts(self, id: str) -> s.Page[s.Attempt]:
        """How often the job was started and how each start ended."""
        return self._get(s.Page[s.Attempt], f"/v1/jobs/{id}/attempts")

    def log(self, id: str, attempt: int | None = None, tail: int | None = None) -> str:
        """What a trainer wrote to its log: the newest start's, or another's."""
        given = {key: value for key, value in {"attempt": attempt, "tail": tail}.items() if value is not None}
        return self._request("GET", f"/v1/jobs/{id}/logs", params=given).text

    def report(self, id: str) -> s.Report:
        """The report of a finished run."""
        return self._get(s.Report, f"/v1/jobs/{id}/report")

    def export(self, id: str) -> bytes:
        """The run as one HTML file that needs no server."""
        return self._request("GET", f"/v1/jobs/{id}/export").content

    # --- several runs -------------------------------------------------------------------------------------------

    def compare(
        self, jobs: Iterable[str], x: s.Axis = "step", keys: Iterable[str] | None = None, max_points: int | None = None
    ) -> s.Comparison:
        """2 to 8 runs: curves against one axis, head-to-head with seeds as one row, differences of their specs."""
        wanted = ",".join(keys) if keys else None
        return self._get(s.Comparison, "/v1/compare", jobs=",".join(jobs), x=x, keys=wanted, max_points=max_points)

    def shared_problems(self, left: str, right: str, step: int, limit: int | None = None) -> s.Page[s.SharedProblem]:
        """Problems that both runs recorded near a step, nearest first."""
        jobs = f"{left},{right}"
        return self._get(s.Page[s.SharedProblem], "/v1/compare/problems", jobs=jobs, step=step, limit=limit)

    # --- questions ----------------------------------------------------------------------------------------------

    def replan(
        self,
        id: str,
        step: int,
        *,
        recipe: str | None = None,
        method: Mapping[str, Any] | None = None,
        sequences: Iterable[int] | None = None,
    ) -> s.Question:
        """Ask what a recorded step would have been under another method. ``answer`` waits for the result."""
        body = {
            "recipe": recipe,
            "method": dict(method or {}),
            "sequences": None if sequences is None else list(sequences),
        }
        return self._as(s.Question, self._request("POST", f"/v1/jobs/{id}/steps/{step}/replan", json=body))

    def probe(
        self,
        id: str,
        prompt: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
        checkpoint: str | None = None,
    ) -> s.Question:
        """Ask what the student does with a prompt. ``answer`` waits for the result."""
        body = {
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed,
            "checkpoint": checkpoint,
        }
        return self._as(s.Question, self._request("POST", f"/v1/jobs/{id}/probe", json=body))

    def question(self, id: str, question_id: str) -> s.Question:
        """A question as it stands, with its result once it is answered."""
        return self._get(s.Question, f"/v1/jobs/{id}/questions/{question_id}")

    def answer(
        self,
        question: s.Question,
        *,
        timeout_s: float | None = None,
        poll_s: float = 0.5,
        tell: Callable[[s.Question], object] | None = None,
    ) -> s.Question:
        """The question once it is closed; ``tell`` hears of it each time it was looked at. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not question.closed:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"question {question.id} is still {question.status} after {timeout_s:g} s")
            time.sleep(poll_s)
            question = self.question(question.job_id, question.id)
            if tell is not None:
                tell(question)
        return question

    # --- catalogue and operations -------------------------------------------------------------------------------

    def recipes(self) -> s.Page[s.Recipe]:
        """All recipes."""
        return self._get(s.Page[s.Recipe], "/v1/recipes")

    def recipe(self, name: str) -> s.Recipe:
        """One recipe."""
        return self._get(s.Recipe, f"/v1/recipes/{name}")

    def workers(self) -> s.Page[s.Worker]:
        """Workers and what they are doing."""
        return self._get(s.Page[s.Worker], "/v1/workers")

    def queues(self) -> s.Page[s.Queue]:
        """Queues with what waits in them and who serves them."""
        return self._get(s.Page[s.Queue], "/v1/queues")

    def recent_attempts(self, limit: int = 20, *, failed: bool = False) -> s.Page[s.Attempt]:
        """Starts of all jobs, newest first; ``failed`` = only those that ended badly."""
        return self._get(s.Page[s.Attempt], "/v1/attempts", limit=limit, failed=failed or None)

    def schema(self) -> s.SpecSchema:
        """The fields of a job spec, as JSON schemas."""
        return self._get(s.SpecSchema, "/v1/schema")

    def models(self) -> s.Page[s.Model]:
        """Models that a spec may name."""
        return self._get(s.Page[s.Model], "/v1/models")

    def tasks(self) -> s.Page[s.Task]:
        """Built-in tasks."""
        return self._get(s.Page[s.Task], "/v1/tasks")

    def ready(self) -> s.Readiness:
        """What works and what is missing. One request, no retries: an unready service answers too."""
        response = self._http.get("/readyz")
        if response.status_code not in (200, 503):
            _raise_for(response)
        return self._as(s.Readiness, response)

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _get(self, model: type[Answer], path: str, **params: Any) -> Answer:
        given = {key: value for key, value in params.items() if value is not None}
        return self._as(model, self._request("GET", path, params=given))

    def _as(self, model: type[Answer], response: httpx.Response) -> Answer:
        return model.model_validate_json(response.content)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        for attempt in range(_TRIES):
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError:
                if attempt == _TRIES - 1:
                    raise
            else:
                if response.status_code not in (502, 503, 504) or attempt == _TRIES - 1:
                    break
            time.sleep(_FIRST_PAUSE_S * 2**attempt)
        _raise_for(response)
        return response


def _default_token() -> str | None:
    if token := os.environ.get("OPD_API_TOKEN"):
        return token
    file = Path(os.environ.get("OPD_HOME") or "~/.opd").expanduser() / "token"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _plain(spec: Spec) -> Any:
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, JobSpec) else dict(spec)


def _raise_for(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        body = json.loads(response.content)
    except ValueError:
        body = {}
    problem = body if isinstance(body, dict) else {}
    raise ApiError(
        response.status_code,
        problem.get("type", "about:blank"),
        problem.get("title", response.reason_phrase),
        problem.get("detail", f"the service answered {response.status_code}"),
        problem.get("param"),
        problem.get("request_id"),
    )


def _server_sent_events(lines: Iterable[str]) -> Iterator[LiveEvent]:
    """Parse https://html.spec.whatwg.org/multipage/server-sent-events.html; ``data`` is JSON in our streams."""
    event_id, kind, data = None, "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield event_id, kind, json.loads("\n".join(data))
            event_id, kind, data = None, "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            event_id = value
        elif field == "event":
            kind = value
        elif field == "data":
            data.append(value)
