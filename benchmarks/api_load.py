"""The API under load: a full database, a hundred requests a second, two hundred viewers, while a job trains.

    python -m benchmarks.api_load [--jobs 100000] [--seconds 60] [--rate 100] [--viewers 200] [--quick]

``listing_ms``: one page of jobs (20), the median of 30 requests one after the other, at a hundredth, a tenth and all of
the jobs; nothing else runs. ``requests``: arrivals at a fixed rate, a fifth of them POST (a fifth of those creates a
job, the others check a spec), while a job trains; a request's time counts from when it was due, so that a slow answer
delays nobody unseen. ``viewers``: live streams of one job with one writer; delay from the writer's call to the viewer.
Clients, service and training share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import yaml
from sqlalchemy import insert

from api.client import Client
from benchmarks.machine import describe_machine, keep
from benchmarks.stack import Stack, running
from opd_core import recipes
from opd_core.runs import database
from opd_core.runs import tables as t
from opd_core.runs.ids import new_id
from opd_core.runs.live import LiveWriter
from opd_core.spec import JobSpec

_TEAMS = 100
_UNSERVED = "bench-load"  # a queue without a worker: what is created here waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, and nothing is written")
    options = parser.parse_args()
    jobs, seconds, viewers = options.jobs, options.seconds, options.viewers
    if options.quick:
        jobs, seconds, viewers = jobs // 10, seconds / 10, viewers // 10
    os.environ |= {"OPD_WAITING_PER_TOKEN": "1000000", "OPD_WAITING_TOTAL": "1000000"}
    machine = describe_machine()
    with running(dashboard=False) as stack:
        listing: dict[str, Any] = {}
        filled = 0
        for goal in (jobs // 100, jobs // 10, jobs):
            _fill(stack, goal - filled)
            filled = goal
            listing[str(goal)] = _listing(stack, goal)
            print(goal, listing[str(goal)], flush=True)
        training = _train(stack.client)
        requests = asyncio.run(_requests(stack, options.rate, seconds))
        requests["training"] = {"steps": _steps(stack.client, training)}
        print(requests, flush=True)
        watched = asyncio.run(_viewers(stack, viewers, writes=100 if options.quick else 300))
        print(watched, flush=True)
        stack.client.cancel(training)
    figures = {"jobs": jobs, "listing_ms": listing, "requests": requests, "viewers": watched}
    if not options.quick:
        keep("api_load", "python -m benchmarks.api_load", figures, machine)


def _spec(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(Path("examples/demo.yaml").read_text())
    return spec | changes


def _fill(stack: Stack, count: int) -> None:
    """Jobs that are over, but one in a thousand that waits; a hundred teams."""
    spec = JobSpec.model_validate(_spec(resources={"queue": _UNSERVED}))
    asked, resolved = spec.model_dump(mode="json"), recipes.resolve(spec).model_dump(mode="json")
    engine = database.connect(stack.settings.database_url)
    for start in range(0, count, 1000):
        jobs, labels = [], []
        for number in range(start, min(start + 1000, count)):
            # At rest rather than queued: the reconciler rings for those, which is not what is measured.
            status = "paused" if number % 1000 == 0 else "failed" if number % 20 == 0 else "succeeded"
            job_id, team = new_id("job"), f"team-{number % _TEAMS}"
            labels.append({"job_id": job_id, "key": "team", "value": team})
            jobs.append(
                {
                    "id": job_id,
                    "name": f"job {number}",
                    "recipe": spec.recipe,
                    "queue": _UNSERVED,
                    "status": status,
                    "phase": status,
                    "desired_state": "pause" if status == "paused" else "run",
                    "attempt": 1,
                    "crashes": 0,
                    "created_at": time.time(),
                    "event_seq": 0,
                    "spec": asked,
                    "resolved_spec": resolved,
                    "progress": {"step": 150, "total": 150},
                    "accuracy": {"before": 0.2, "after": 0.8},
                    "warnings": [],
                    "metadata": {"team": team},
                    "created_by": "admin",
                }
            )
        with database.writer(engine).begin() as connection:
            connection.execute(insert(t.jobs), jobs)
            connection.execute(insert(t.labels), labels)
    engine.dispose()


def _http(stack: Stack) -> dict[str, Any]:
    """Address and token of the service, for a client that does nothing else."""
    headers = {"Authorization": f"Bearer {stack.settings.token()}"}
    return {"base_url": stack.client.url, "headers": headers, "trust_env": False}


def _listing(stack: Stack, jobs: int) -> dict[str, float]:
    with httpx.Client(**_http(stack)) as http:
        deep = _behind(http, max(jobs // 10, 1))
        asked = {
            "first page": {},
            "deep page": {"after": deep},
            "status": {"status": "paused"},
            "status, deep page": {"status": "succeeded", "after": deep},
            "metadata": {"metadata[team]": "team-7"},
            "metadata and status": {"metadata[team]": "team-7", "status": "succeeded"},
            "metadata, none": {"metadata[team]": "nobody"},
            "name, none": {"name": "no such name"},
        }
        return {name: _median_ms(http, params) for name, params in asked.items()}


def _behind(http: httpx.Client, count: int) -> str:
    """The cursor behind the newest ``count`` jobs."""
    after, limit = "", min(count, 100)
    for _ in range(count // limit):
        page = http.get("/v1/jobs", params={"limit": limit} | ({"after": after} if after else {})).json()
        after = page["next_cursor"]
    return after


def _median_ms(http: httpx.Client, params: dict[str, Any]) -> float:
    times = []
    for _ in range(30):
        started = time.perf_counter()
        assert http.get("/v1/jobs", params=params).status_code == 200
        times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1000, 2)


def _train(client: Client) -> str:
    """A job that trains for as long as we need; its id, once it does."""
    job = client.submit(_spec(schedule={"steps": 100_000, "evaluate_every": 0, "checkpoint_every": 0}))
    while _steps(client, job.id) < 2:
        time.sleep(0.2)
    return job.id


def _steps(client: Client, job_id: str) -> int:
    return client.job(job_id).progress.step or 0


async def _requests(stack: Stack, rate: float, seconds: float) -> dict[str, Any]:
    luck = random.Random(0)
    spec = _spec(resources={"queue": _UNSERVED})
    known = [job.id for job in stack.client.jobs(limit=100).data]
    gc.freeze()  # the client's own search for garbage is not the service's
    times: dict[str, list[float]] = {"GET": [], "POST": []}
    statuses: dict[int, int] = {}

    async def ask(http: httpx.AsyncClient, due: float) -> None:
        await asyncio.sleep(due - time.perf_counter())
        if luck.random() < 0.2:
            method, create = "POST", luck.random() < 0.2
            answer = await http.post("/v1/jobs", params={} if create else {"validate_only": True}, json=spec)
        else:
            method, job_id = "GET", luck.choice(known)
            paths = ("", "?status=paused", f"?metadata[team]=team-{luck.randrange(_TEAMS)}", f"?after={job_id}")
            paths += (f"/{job_id}", f"/{job_id}/events", f"/{job_id}/metrics")
            answer = await http.get(f"/v1/jobs{luck.choice(paths)}")
        times[method].append(time.perf_counter() - due)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(**_http(stack), limits=limits, timeout=httpx.Timeout(120.0, pool=None)) as http:
        start = time.perf_counter() + 0.5
        await asyncio.gather(*(ask(http, start + number / rate) for number in range(int(rate * seconds))))
        took = time.perf_counter() - start
    return {
        "per_s": rate,
        "seconds": round(took, 1),
        "answers_by_status": {str(status): count for status, count in sorted(statuses.items())},
        **{f"{method.lower()}_ms": _percentiles(found) for method, found in times.items()},
    }


async def _viewers(stack: Stack, count: int, writes: int) -> dict[str, Any]:
    job = stack.client.submit(_spec(resources={"queue": _UNSERVED}))
    delays: list[float] = []
    ready = asyncio.Semaphore(0)

    async def watch(http: httpx.AsyncClient) -> int:
        seen = 0
        async with http.stream("GET", f"/v1/jobs/{job.id}/stream", params={"types": "progress,status"}) as answer:
            assert answer.status_code == 200, answer.status_code
            async for line in answer.aiter_lines():
                if line.startswith("event: status") and not seen:
                    ready.release()
                if line.startswith('data: {"written"'):
                    delays.append(time.time() - json.loads(line.removeprefix("data: "))["written"])
                    seen += 1
                    if seen == writes:
                        return seen
        return seen

    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(**_http(stack), limits=limits, timeout=httpx.Timeout(60.0)) as http:
        viewers = [asyncio.create_task(watch(http)) for _ in range(count)]
        for _ in viewers:
            await ready.acquire()
        writer = LiveWriter(stack.settings.redis_url)
        for _ in range(writes):
            await asyncio.to_thread(writer.publish, job.id, "progress", {"written": time.time()})
            await asyncio.sleep(0.1)
        seen = await asyncio.gather(*viewers)
        writer.close()
    stack.client.cancel(job.id)
    return {
        "viewers": count,
        "updates": writes,
        "updates_per_s": 10,
        "missed": count * writes - sum(seen),
        "delay_ms": _percentiles(delays),
    }


def _percentiles(seconds: list[float]) -> dict[str, Any]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    named = {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": max(seconds)}
    return {"count": len(seconds), **{name: round(value * 1000, 1) for name, value in named.items()}}


if __name__ == "__main__":
    main()
