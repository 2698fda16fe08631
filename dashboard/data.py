"""Every call to the API, with how long its answer may be reused.

Pages and components call these functions only. A failed call raises ``Problem``, never anything else.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import httpx
import streamlit as st

from api.client import ApiError, Client
from api.schemas import (
    Attempt,
    Axis,
    Checkpoint,
    Comparison,
    Event,
    Gates,
    Health,
    Heatmap,
    Job,
    Metrics,
    Occurrences,
    Page,
    Profile,
    Question,
    Queue,
    Recipe,
    Report,
    Sequence,
    SequenceSummary,
    SharedProblem,
    SpecSchema,
    Worker,
)

T = TypeVar("T")

# What changes while a run runs is reused just long enough that the panels of one tick, and several viewers of
# the same run, share one request. A recorded step changes only when a later attempt repeats it.
LIVE_S = 0.8
SUMMARY_S = 3.0  # what is computed from many steps
RECORDS_S = 30.0
SETTLED_S = 300.0
MAX_EVENTS = 1000
SCALE_SEQUENCES = 16  # sequences of a step that set the colour scale

Kind = Literal["unreachable", "unauthorized", "missing", "refused"]


class Trend(NamedTuple):
    """How a run in the table has gone: its accuracies, and what it has computed."""

    accuracies: tuple[float, ...]
    flops: float | None


class Problem(Exception):
    """The API could not or would not answer. ``detail`` is for people; ``param`` names the field of a bad spec."""

    def __init__(self, kind: Kind, detail: str, *, param: str | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.param = param

    @property
    def is_outage(self) -> bool:
        """Nothing works until it is over, whatever the page."""
        return self.kind in ("unreachable", "unauthorized")


@functools.lru_cache(maxsize=1)
def _client() -> Client:
    return Client()


def client() -> Client:
    """The one client of this process (address and token from the environment). Tests replace this function."""
    return _client()


def _call(question: Callable[[Client], T]) -> T:
    try:
        return question(client())
    except ApiError as error:
        detail = error.detail or error.title
        if error.status in (401, 403):
            _client.cache_clear()  # the token file may hold a new token by the next try
            raise Problem("unauthorized", detail) from error
        if error.status == 404:
            raise Problem("missing", detail) from error
        raise Problem("refused", detail, param=error.param) from error
    except httpx.HTTPError as error:
        _client.cache_clear()
        raise Problem("unreachable", str(error) or type(error).__name__) from error


def _checked(job_id: str) -> str:
    # The id comes from the address bar and becomes a part of a path.
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", job_id):
        raise Problem("missing", "This is not the id of a run.")
    return job_id


def forget() -> None:
    """Drop every cached answer: after a write, and when the connection was lost."""
    st.cache_data.clear()


def check() -> None:
    """Ask the API anything, uncached. Raises Problem while it cannot be used."""
    _call(lambda api: api.ready())  # fails at once where the other calls try again first
    _call(lambda api: api.jobs(limit=1))


@st.cache_data(ttl=LIVE_S, max_entries=4, show_spinner=False)
def jobs(limit: int = 50) -> list[Job]:
    """The newest runs, newest first."""
    return list(_call(lambda api: api.jobs(limit=limit)).data)


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def job(job_id: str) -> Job:
    """One run."""
    return _call(lambda api: api.job(_checked(job_id)))


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def metrics(job_id: str, max_points: int = 400) -> Metrics:
    """All series of a run, thinned out by the server to at most ``max_points`` steps."""
    return _call(lambda api: api.metrics(_checked(job_id), max_points=max_points))


@st.cache_data(ttl=60.0, max_entries=500, show_spinner=False)
def trend(job_id: str, revision: str) -> Trend:  # noqa: ARG001 - part of the cache key
    """The accuracies measured so far, and the compute. ``revision`` changes with the run, so that a still one rests."""
    answer = _call(lambda api: api.metrics(_checked(job_id), keys=["accuracy", "flops"], max_points=30))
    known = {key: [value for value in values if value is not None] for key, values in answer.series.items()}
    return Trend(tuple(known.get("accuracy", ())), next(reversed(known.get("flops", [])), None))


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def events(job_id: str) -> list[Event]:
    """The run's events, oldest first."""
    found: list[Event] = []
    more = True
    while more and len(found) < MAX_EVENTS:
        page = _events_after(job_id, found[-1].seq if found else None)
        found += page.data
        more = page.has_more
    return found


def _events_after(job_id: str, after: int | None) -> Page[Event]:
    return _call(lambda api: api.events(_checked(job_id), after=after, limit=100))


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def attempts(job_id: str) -> list[Attempt]:
    """How often the run was started, and how each start ended."""
    return list(_call(lambda api: api.attempts(_checked(job_id))).data)


@st.cache_data(ttl=LIVE_S, max_entries=200, show_spinner=False)
def steps(job_id: str) -> list[int]:
    """Steps with token records, ascending."""
    return sorted(row.step for row in _call(lambda api: api.steps(_checked(job_id))).data)


@st.cache_data(ttl=RECORDS_S, max_entries=500, show_spinner=False)
def sequences(job_id: str, step: int) -> list[SequenceSummary]:
    """The recorded sequences of a step."""
    return list(_call(lambda api: api.sequences(_checked(job_id), step)).data)


@st.cache_data(ttl=RECORDS_S, max_entries=500, show_spinner=False)
def sequence(job_id: str, step: int, n: int) -> Sequence:
    """One sequence, token by token."""
    return _call(lambda api: api.sequence(_checked(job_id), step, n))


@st.cache_data(ttl=SUMMARY_S, max_entries=60, show_spinner=False)
def returns(job_id: str, field: str, from_step: int | None = None, to_step: int | None = None) -> Profile:
    """A quantity of all tokens by position and step; the whole run by default."""
    return _call(lambda api: api.returns(_checked(job_id), field, from_step, to_step))


@st.cache_data(ttl=SUMMARY_S, max_entries=60, show_spinner=False)
def gates(job_id: str, gate: str | None, from_step: int, to_step: int) -> Gates:
    """What one gate (None: all together) let through over a range of steps, both ends included."""
    return _call(lambda api: api.gates(_checked(job_id), gate, from_step, to_step))


@st.cache_data(ttl=RECORDS_S, max_entries=60, show_spinner=False)
def suppressed(job_id: str, token: int, from_step: int, to_step: int) -> Occurrences:
    """Where a token was written and suppressed."""
    return _call(lambda api: api.suppressed(_checked(job_id), token, from_step, to_step))


@st.cache_data(ttl=SUMMARY_S, max_entries=60, show_spinner=False)
def health(job_id: str) -> Health:
    """The diagnostics of a run as lights."""
    return _call(lambda api: api.health(_checked(job_id)))


@st.cache_data(ttl=RECORDS_S, max_entries=60, show_spinner=False)
def routing(job_id: str, from_step: int, to_step: int, rows: int, columns: int) -> Heatmap:
    """Predicted and realised change of probability over a range of steps, both ends included."""
    return _call(
        lambda api: api.routing(_checked(job_id), from_step=from_step, to_step=to_step, rows=rows, columns=columns)
    )


@st.cache_data(ttl=LIVE_S, max_entries=40, show_spinner=False)
def compare(job_ids: tuple[str, ...], axis: Axis, max_points: int = 300) -> Comparison:
    """Two to eight runs against one axis, and their head-to-head."""
    checked = [_checked(job_id) for job_id in job_ids]
    return _call(lambda api: api.compare(checked, x=axis, max_points=max_points))


@st.cache_data(ttl=RECORDS_S, max_entries=200, show_spinner=False)
def shared_problems(left: str, right: str, step: int) -> list[SharedProblem]:
    """Problems that both runs recorded near a step, nearest first."""
    return list(_call(lambda api: api.shared_problems(_checked(left), _checked(right), step)).data)


def export(job_id: str) -> bytes:
    """The run as one HTML file; large, so made only when somebody wants it."""
    return _call(lambda api: api.export(_checked(job_id)))


@st.cache_data(ttl=5.0, max_entries=100, show_spinner=False)
def checkpoints(job_id: str) -> list[Checkpoint]:
    """Complete checkpoints and the exported student."""
    return list(_call(lambda api: api.checkpoints(_checked(job_id))).data)


@st.cache_data(ttl=SETTLED_S, max_entries=100, show_spinner=False)
def report(job_id: str) -> Report:
    """The finished run's report."""
    return _call(lambda api: api.report(_checked(job_id)))


@st.cache_data(ttl=SETTLED_S, max_entries=1, show_spinner=False)
def recipes() -> list[Recipe]:
    """All recipes."""
    return list(_call(lambda api: api.recipes()).data)


@st.cache_data(ttl=SETTLED_S, max_entries=1, show_spinner=False)
def schema() -> SpecSchema:
    """The fields of a job spec."""
    return _call(lambda api: api.schema())


@st.cache_data(ttl=LIVE_S, max_entries=1, show_spinner=False)
def workers() -> list[Worker]:
    """All known workers."""
    return list(_call(lambda api: api.workers()).data)


@st.cache_data(ttl=LIVE_S, max_entries=1, show_spinner=False)
def queues() -> list[Queue]:
    """Queues with what waits in them."""
    return list(_call(lambda api: api.queues()).data)


@st.cache_data(ttl=5.0, max_entries=1, show_spinner=False)
def failed_attempts() -> list[Attempt]:
    """Recent starts of any run that ended badly, newest first."""
    return list(_call(lambda api: api.recent_attempts(limit=20, failed=True)).data)


@st.cache_data(ttl=60.0, max_entries=1, show_spinner=False)
def models() -> list[str]:
    """Names of the models that can be used without a download."""
    return [model.id for model in _call(lambda api: api.models()).data]


@st.cache_data(ttl=60.0, max_entries=1, show_spinner=False)
def tasks() -> list[str]:
    """Names of the built-in tasks."""
    return [task.name for task in _call(lambda api: api.tasks()).data]


def validate(spec: dict[str, Any]) -> list[str]:
    """The warnings of a good spec. Raises Problem (with ``param``) for a bad one."""
    return list(_call(lambda api: api.validate(spec)).warnings)


def submit(spec: dict[str, Any], idempotency_key: str) -> Job:
    """Accept the job. The same key twice is the same job."""
    made = _call(lambda api: api.submit(spec, idempotency_key=idempotency_key))
    forget()
    return made


def pause(job_id: str) -> None:
    """Ask the run to rest; it saves a checkpoint first."""
    _call(lambda api: api.pause(_checked(job_id)))
    forget()


def resume(job_id: str) -> None:
    """Let a paused run go on."""
    _call(lambda api: api.resume(_checked(job_id)))
    forget()


def save(job_id: str) -> None:
    """Ask for a checkpoint."""
    _call(lambda api: api.save(_checked(job_id)))
    forget()


def delete(job_id: str) -> None:
    """Remove a run that is over, with all that it left."""
    _call(lambda api: api.delete(_checked(job_id)))
    forget()


def replan(job_id: str, step: int, n: int, recipe: str | None, method: dict[str, Any]) -> Question:
    """Ask what a recorded sequence would have been under another method."""
    return _call(lambda api: api.replan(_checked(job_id), step, recipe=recipe, method=method, sequences=[n]))


def probe(job_id: str, prompt: str, *, temperature: float, seed: int, checkpoint: str | None) -> Question:
    """Ask what the run's student does with a prompt."""
    return _call(
        lambda api: api.probe(_checked(job_id), prompt, temperature=temperature, seed=seed, checkpoint=checkpoint)
    )


@st.cache_data(ttl=LIVE_S, max_entries=50, show_spinner=False)
def question(job_id: str, question_id: str) -> Question:
    """A question, with its result once it is answered."""
    return _call(lambda api: api.question(_checked(job_id), _checked(question_id)))


def api_url() -> str:
    """The service's address as this process reaches it."""
    return client().url


def cancel(job_id: str) -> None:
    """Ask the worker to stop; the last checkpoint stays."""
    _call(lambda api: api.cancel(_checked(job_id)))
    forget()
