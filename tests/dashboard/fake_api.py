"""A service in one thread: the HTTP contract over made-up records, with the hostile tokens a model may write."""

from __future__ import annotations

import json
import math
import random
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opd_core.recipes import load
from tests.dashboard import fake_compare, fake_fleet, fake_profiles, fake_questions
from tests.quantities import quantities

TOKEN = "fake-token"
HOSTILE = "<img src=x onerror=window.__xss=1>"
BIDI = "\u202eevil"
VOCABULARY = [
    " 3", " +", " 4", " =", " 7", "\n", "\t", "  ", HOSTILE, BIDI, " apples", " So", " Tom", " has", ".", " 12",
    " five", "**bold**", "$x^2$", "\u200b", "<eos>", " minus", " 8", " times",
]  # fmt: skip
START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
RUNNING, DONE, FAILED, QUEUED = "job_0running", "job_0done", "job_0failed", "job_0queued"
ROUTED = "job_0routed"  # a critic, two gates and vocabulary routing
SHORTER = "The student may be learning to stop early: the mean length fell from 24.1 to 9.7 tokens."
TOTAL = 60
SEQUENCES = 4

Json = dict[str, Any]

RECIPES: list[Json] = [
    {
        "object": "recipe",
        "name": "forward-kl",
        "title": "On-policy forward KL",
        "summary": "The teacher's whole distribution is matched at every state that the student writes.",
        "formula": "L = mean_t KL(teacher(.|s_t) || student(.|s_t)),  s_t written by the student",
        "citation": "GKD, arXiv 2306.13649 (lambda = 1, forward KL)",
        "route": "direct",
        "variable": "objective",
        "grade": "published",
        "teacher": "log-probabilities of the whole vocabulary",
        "evidence": "Published by several groups; strong on small tasks.",
        "differs": "",
        "fixed_point": "teacher",
        "method": load("forward-kl").method.model_dump(mode="json"),
    },
    {
        "object": "recipe",
        "name": "tml-opd",
        "title": "Sampled-token on-policy distillation",
        "summary": "Each sampled token is rewarded with the teacher's log-probability minus the student's.",
        "formula": "L = -mean_t sg(r_t) log pi(y_t)",
        "citation": "Thinking Machines Lab, On-Policy Distillation (2025)",
        "route": "log_ratio",
        "variable": "objective",
        "grade": "reported",
        "teacher": "the log-probability of the sampled token",
        "evidence": "Widely used at scale.",
        "differs": "",
        "fixed_point": "teacher",
        "method": load("tml-opd").method.model_dump(mode="json"),
    },
    load("gae-cr-opd").model_dump(mode="json") | {"object": "recipe", "brings": load("gae-cr-opd").brings.brief()},
]


class Refused(Exception):
    """Becomes a problem+json answer."""

    def __init__(self, status: int, title: str, detail: str, param: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"type": "urn:opd:problem:test", "title": title, "status": status, "detail": detail, "param": param}


ESTIMATE = {
    "rollouts_per_step": 64,
    "rollouts": 9600,
    "student_tokens": 460_800,
    "scored_tokens": 460_800,
    "flops": 3.2e12,
    "models": [{"param": "student.model", "model": "demo/student", "parameters": 400_000}],
    "memory": [{"what": "student: weights", "gib": 1.5}, {"what": "rollout: key-value cache", "gib": 0.5}],
    "memory_gib": 2.0,
    "notes": ["Prompts come on top."],
}


class World:
    """The records. ``advance()`` lets the running job do one more step."""

    def __init__(self) -> None:
        self.steps = {RUNNING: 12, DONE: TOTAL, FAILED: 0, QUEUED: 0, ROUTED: TOTAL}
        self.submitted: list[Json] = []
        self.questions = fake_questions.Desk(lambda step, n: sequence(step, n, whole=True))
        self.jobs: dict[str, Json] = {}
        for job_id, status, name, recipe in (
            (QUEUED, "queued", "sweep-03", "tml-opd"),
            (RUNNING, "running", "demo-live", "tml-opd"),
            (FAILED, "failed", "bad column", "forward-kl"),
            (DONE, "succeeded", "demo-forward-kl", "forward-kl"),
            (ROUTED, "succeeded", "demo-gae-cr", "gae-cr-opd"),
        ):
            self.jobs[job_id] = self._job(job_id, status, name, recipe)
        self.jobs[DONE]["warnings"] = ["telemetry.probe_states was lowered to 16"]
        self.jobs[ROUTED]["warnings"] = [SHORTER]
        self.jobs[FAILED]["error"] = {
            "code": "missing_column",
            "message": "task.prompt_column: there is no column 'question' <img src=x onerror=window.__xss=1>",
            "param": "task.prompt_column",
            "category": "user",
            "retryable": False,
        }
        self._refresh()

    def _job(self, job_id: str, status: str, name: str, recipe: str) -> Json:
        spec = {
            "name": name,
            "student": {"model": "demo/student"},
            "teacher": {"model": "demo/teacher"},
            "task": {"name": "demo/word-problems"},
            "recipe": recipe,
            "optimizer": {"lr": 1e-3},
            "schedule": {"steps": TOTAL},
            "seed": 0,
        }
        started = status != "queued"
        method = load(recipe).method.model_dump(mode="json")
        return {
            "object": "job",
            "id": job_id,
            "name": name,
            "status": status,
            "phase": {"running": "training", "queued": "queued"}.get(status, "done"),
            "desired_state": "run",
            "attempt": 1 if started else 0,
            "queue": "cpu",
            "recipe": recipe,
            "created_at": START.isoformat(),
            "started_at": (START + timedelta(seconds=4)).isoformat() if started else None,
            "finished_at": (START + timedelta(seconds=130)).isoformat() if status in ("succeeded", "failed") else None,
            "progress": {},
            "accuracy": {},
            "worker": "cpu0@node-1" if started else None,
            "latest_checkpoint": "ckpt_export" if status == "succeeded" else None,
            "save_wanted": False,
            "error": None,
            "warnings": [],
            "metadata": {},
            "spec": spec,
            "resolved_spec": spec | {"method": method},
        }

    def advance(self, steps: int = 1) -> None:
        """The running job goes on; at its last step it succeeds."""
        self.steps[RUNNING] = min(TOTAL, self.steps[RUNNING] + steps)
        if self.steps[RUNNING] == TOTAL:
            self.jobs[RUNNING] |= {"status": "succeeded", "phase": "done", "finished_at": START.isoformat()}
        self._refresh()

    def _refresh(self) -> None:
        for job_id, job in self.jobs.items():
            done = self.steps.get(job_id, 0)
            if job["status"] == "queued" or not done:
                continue
            job["progress"] = {
                "step": done,
                "total": TOTAL,
                "student_tokens": 1020 * done,
                "teacher_tokens": 1020 * done,
                "tokens_per_s": 8123.4,
                "eta_s": 0.4 * (TOTAL - done),
                "loss": 0.9 * math.exp(-done / 20),
            }
            job["accuracy"] = {"before": 0.24, "latest": accuracy(done), "after": None, "teacher": 0.98}
            if job["status"] == "succeeded":
                job["accuracy"] |= {"after": accuracy(done), "gap_recovered": (accuracy(done) - 0.24) / 0.74}

    # --- answers ------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Json | None) -> tuple[int, Json]:
        """Route one request below /v1."""
        parts = path.strip("/").split("/")
        if parts == ["jobs"]:
            return self._submit(body or {}, query) if method == "POST" else (200, page(list(self.jobs.values())))
        if parts[0] == "recipes":
            return 200, page(RECIPES)
        if parts[0] == "models":
            names = ("demo/student", "demo/teacher")
            return 200, page([{"object": "model", "id": name, "kind": "demo"} for name in names])
        if parts[0] == "tasks":
            return 200, page([{"object": "task", "name": "demo/word-problems", "summary": "Small sums in words."}])
        if parts[0] == "schema":
            return 200, fake_fleet.schema()
        if parts[0] == "workers":
            return 200, page(fake_fleet.workers(START.isoformat(), RUNNING))
        if parts[0] == "queues":
            return 200, page(fake_fleet.queues())
        if parts[0] == "attempts":
            return 200, page(fake_fleet.failures(START.isoformat(), FAILED, HOSTILE))
        if parts[0] == "compare":
            return self._compare(parts[1:], query)
        if parts[0] != "jobs" or parts[1] not in self.jobs:
            raise Refused(404, "Not found", f"There is no job {parts[1] if len(parts) > 1 else path!r}.")
        if self.questions.concerns(parts[2:]):
            found = self.questions.answer(parts[1], parts[2:], body)
            if found is None:
                raise Refused(404, "Not found", "The job has no such question.")
            return found
        return self._about(self.jobs[parts[1]], parts[2:], method, query)

    def _compare(self, rest: list[str], query: dict[str, str]) -> tuple[int, Json]:
        ids = query["jobs"].split(",")
        unknown = next((one for one in ids if one not in self.jobs), None)
        if unknown is not None:
            raise Refused(404, "Not found", f"query parameter jobs: there is no job {unknown!r}", "jobs")
        if rest == ["problems"]:
            done = [self.steps[one] for one in ids]
            return 200, page(fake_compare.shared_problems(SEQUENCES, int(query["step"]), done))
        series = [metrics(self.steps.get(one, 0), None, one == ROUTED) for one in ids]
        return 200, fake_compare.comparison([self.jobs[one] for one in ids], series, query["x"])

    def _submit(self, spec: Json, query: dict[str, str]) -> tuple[int, Json]:
        if not 0 < spec.get("optimizer", {}).get("lr", 1e-5) <= 1:
            raise Refused(422, "The request is not valid", "optimizer.lr: must be above 0 (got 0.0)", "optimizer.lr")
        if query.get("validate_only"):
            return 200, {
                "object": "validation",
                "resolved_spec": spec,
                "warnings": ["seed 0 is everyone's seed"],
                "estimate": ESTIMATE,
            }
        job_id = f"job_0new{len(self.submitted)}"
        self.submitted.append(spec)
        job = self._job(job_id, "queued", spec["name"], spec["recipe"]) | {"spec": spec}
        self.jobs = {job_id: job, **self.jobs}
        return 201, job

    def _about(self, job: Json, rest: list[str], method: str, query: dict[str, str]) -> tuple[int, Json]:
        done, whole = self.steps.get(job["id"], 0), job["id"] == ROUTED
        match rest:
            case [verb] if method == "POST":
                if not fake_fleet.done_with(job, verb):
                    raise Refused(409, "Not now", f"a job that is {job['status']} cannot {verb}")
                return 202, job
            case [] if method == "DELETE":
                del self.jobs[job["id"]]
                return 204, {}
            case []:
                return 200, job
            case ["metrics"]:
                return 200, metrics(done, query.get("keys"), whole)
            case ["events"]:
                return 200, page([] if query.get("after") else events(job, done))
            case ["attempts"]:
                return 200, page(attempts(job))
            case ["steps"]:
                return 200, page([{"step": step, "sequences": SEQUENCES} for step in range(1, done + 1)])
            case ["steps", step, "sequences"]:
                rows = [sequence(int(step), n, whole) for n in range(SEQUENCES)]
                return 200, {
                    **page([{k: v for k, v in row.items() if k != "tokens"} for row in rows]),
                    "step": int(step),
                }
            case ["steps", step, "quantities"]:
                return 200, {
                    **page(quantities([sequence(int(step), n, whole) for n in range(SEQUENCES)])),
                    "step": int(step),
                }
            case ["steps", step, "sequences", n]:
                if int(step) > done or int(n) >= SEQUENCES:
                    raise Refused(404, "Not found", f"Step {step} has no recorded sequence {n}.")
                return 200, sequence(int(step), int(n), whole)
            case ["heatmaps", "routing"]:
                return 200, heatmap(int(query["from_step"]), int(query["to_step"]), whole)
            case ["heatmaps", "returns"]:
                first, last = int(query.get("from_step", 0)), int(query.get("to_step", TOTAL))
                return 200, fake_profiles.profile(query["field"], first, last, done, whole)
            case ["heatmaps", "gates"]:
                first, last = int(query["from_step"]), int(query["to_step"])
                return 200, fake_profiles.gates(query.get("gate"), first, last, done, whole, [HOSTILE, BIDI])
            case ["health"]:
                return 200, fake_profiles.health(done)
            case ["tokens", token_id, "suppressed"]:
                return 200, fake_profiles.suppressed(int(token_id))
            case ["checkpoints"]:
                return 200, page(checkpoints(job))
            case ["export"]:
                return 200, {"exported": job["id"]}
            case ["report"]:
                return 200, {"accuracy": job["accuracy"], "budget": {"flops": 1e12}, "spec": job["spec"], "seed": 0}
        raise Refused(404, "Not found", f"No such resource: {'/'.join(rest)}")


def page(rows: list[Json]) -> Json:
    """A list as the API writes it."""
    return {"object": "list", "data": rows, "has_more": False, "next_cursor": None}


def accuracy(step: int) -> float:
    """Rises from 24 % towards 98 %; measured every 5 steps."""
    return 0.98 - 0.74 * math.exp(-(step - step % 5) / 18)


def metrics(done: int, keys: str | None, whole: bool = False) -> Json:
    """Smooth curves with a little noise; ``whole``: also those of a critic, gates and routing."""
    noise = random.Random(1)
    steps = list(range(done + 1)) if done else []
    series: dict[str, list[float | None]] = {
        "accuracy": [accuracy(s) if s % 5 == 0 else None for s in steps],
        "loss": [None if s == 0 else 0.9 * math.exp(-s / 20) + 0.05 * noise.random() for s in steps],
        "kl": [None if s == 0 else 0.7 * math.exp(-s / 18) + 0.04 * noise.random() for s in steps],
        "length_mean": [None if s == 0 else 24 + 4 * noise.random() for s in steps],
        "eval_length": [22 + noise.random() if s % 5 == 0 else None for s in steps],
        "entropy_student": [None if s == 0 else 1.2 * math.exp(-s / 30) for s in steps],
        "entropy_teacher": [None if s == 0 else 0.2 + 0.02 * noise.random() for s in steps],
        "grad_norm": [None if s == 0 else 2 * math.exp(-s / 15) + 0.3 * noise.random() for s in steps],
        "log_ratio_mean": [None if s == 0 else -0.7 * math.exp(-s / 18) for s in steps],
        "time_rollout_s": [None if s == 0 else 0.16 for s in steps],
        "time_teacher_s": [None if s == 0 else 0.05 for s in steps],
        "time_update_s": [None if s == 0 else 0.15 + 0.01 * noise.random() for s in steps],
        "time_telemetry_s": [None if s == 0 else 0.01 for s in steps],
        "tokens_per_s": [None if s == 0 else 8000 + 300 * noise.random() for s in steps],
        "flops": [3.1e11 * s for s in steps],
        "wall_s": [0.37 * s for s in steps],
        "memory_gib": [None if s == 0 else 0.5 for s in steps],
    }
    if whole:
        series |= {
            key: [None if s == 0 else value(s) * (1 - 0.1 * noise.random()) for s in steps]
            for key, value in {
                "critic_explained_variance": lambda s: 0.8 - math.exp(-s / 12),
                "critic_length_correlation": lambda s: -0.4,
                "critic_value_mean": lambda s: -3 * math.exp(-s / 25),
                "critic_loss": lambda s: 0.4 * math.exp(-s / 15),
                "critic_grad_norm": lambda s: 0.5 * math.exp(-s / 15),
                "route_triggered": lambda s: 0.3 * math.exp(-s / 30),
                "route_empty": lambda s: 0.06,
                "importance_truncated": lambda s: 0.0,
                "gate_tip_share": lambda s: 0.5,
                "gate_tip_weight": lambda s: 0.5,
                "gate_prefix_weight_share": lambda s: 1.0,
                "gate_prefix_weight_weight": lambda s: 1.25,
                "size_log_ratio": lambda s: 0.6 * math.exp(-s / 18),
                "size_baseline": lambda s: 0.4 * math.exp(-s / 18),
                "size_temporal": lambda s: 0.3 * math.exp(-s / 18),
                "size_route": lambda s: 0.2 * math.exp(-s / 18),
            }.items()
        }
    wanted = keys.split(",") if keys else list(series)
    return {"object": "metrics", "steps": steps, "series": {key: series[key] for key in wanted if key in series}}


def events(job: Json, done: int) -> list[Json]:
    """A short history."""
    rows = [("info", "created", "Job accepted.")]
    if job["attempt"]:
        rows += [("info", "claimed", f"{job['worker']} took the job."), ("info", "self_check", "Trunk and head agree.")]
    rows += [("info", "checkpoint", f"Checkpoint of step {step}.") for step in range(25, done + 1, 25)]
    if job["error"]:
        rows.append(("error", "failed", job["error"]["message"]))
    return [
        {
            "object": "event",
            "id": f"evt_{i}",
            "seq": i,
            "created_at": (START + timedelta(seconds=3 * i)).isoformat(),
            "level": level,
            "type": kind,
            "message": message,
            "data": {},
            "attempt": job["attempt"] or None,
        }
        for i, (level, kind, message) in enumerate(rows, 1)
    ]


def attempts(job: Json) -> list[Json]:
    """One start, if it was started."""
    if not job["attempt"]:
        return []
    return [{"object": "attempt", "job_id": job["id"], "attempt": 1, "worker": job["worker"], "host": "node-1",
             "pid": 4711, "started_at": START.isoformat(), "finished_at": job["finished_at"],
             "exit_code": None}]  # fmt: skip


def checkpoints(job: Json) -> list[Json]:
    """A training checkpoint and the exported student of a run that succeeded."""
    if job["status"] != "succeeded":
        return []
    file = {"id": "f1", "name": "model.safetensors", "size": 4_200_000, "sha256": "0" * 64}
    return [
        {"object": "checkpoint", "id": f"ckpt_{kind}", "name": name, "step": TOTAL, "attempt": 1, "kind": kind,
         "size_bytes": 4_200_000, "created_at": START.isoformat(), "files": [file]}
        for kind, name in (("training", "step-000060.a1"), ("export", "student"))
    ]  # fmt: skip


def token(draw: random.Random, pos: int, identifier: int, temper: float, whole: bool) -> Json:
    """One token with both models' opinions; every third one is probed."""
    student = -draw.expovariate(1.2)
    teacher = min(-0.01, student + draw.gauss(-0.25, 1.1) * temper)
    ratio = teacher - student
    others = draw.sample([i for i in range(len(VOCABULARY)) if i != identifier], 5)

    def top(own: float) -> list[tuple[int, float, float]]:
        ids = sorted([identifier, *others[:4]], key=lambda i: i != identifier)
        return [(i, own - 0.8 * rank, own - 0.6 * rank - draw.random()) for rank, i in enumerate(ids)]

    suppressed = ratio < 0
    probed = pos % 3 == 0
    return (credited(ratio, pos) if whole else plain(ratio)) | {
        "pos": pos,
        "id": identifier,
        "text": VOCABULARY[identifier],
        "logp_student": student,
        "logp_teacher": teacher,
        "log_ratio": ratio,
        "entropy_student": draw.random() * 1.5,
        "entropy_teacher": draw.random() * 0.6,
        "kl": abs(ratio) * 0.7,
        "student_top": [{"id": i, "text": VOCABULARY[i], "logp": a, "teacher_logp": b} for i, a, b in top(student)],
        "teacher_top": [{"id": i, "text": VOCABULARY[i], "logp": a, "student_logp": b} for i, a, b in top(teacher)],
        "route": [{"id": i, "text": VOCABULARY[i], "weight": w} for i, w in zip(others, (0.6, 0.3, 0.1), strict=False)]
        if suppressed
        else [],
        "probe": [
            {"id": i, "text": VOCABULARY[i], "predicted": p, "realised": p * draw.uniform(-0.3, 1.4)}
            for i, p in ((identifier, 0.02 * ratio), (others[0], -0.012 * ratio), (others[1], -0.006 * ratio))
        ]
        if probed
        else None,
    }


def plain(ratio: float) -> Json:
    """What an update without a critic made of the token, as a service recorded it that knew no names."""
    gate = 0.0 if abs(ratio) < 0.05 else 1.0
    advantage = ratio * 1.4 - 0.1
    return {"return": ratio * 1.4, "advantage": advantage, "gate": gate, "coefficient": gate * advantage}


def credited(ratio: float, pos: int) -> Json:
    """What an update with a critic and two gates made of it."""
    gates = {"tip": float(pos % 4 != 1), "prefix_weight": 1.5 - pos / 54}
    gate = math.prod(gates.values())
    parts = {"log_ratio": ratio * gate, "baseline": 0.3 * gate, "temporal": math.sin(pos) * gate}
    return {
        "return": ratio * (27 - pos) / 3,
        "value": -0.3 * (27 - pos) / 3,
        "advantage": ratio + 0.3 + math.sin(pos),
        "gate": gate,
        "gates": gates,
        "coefficient": sum(parts.values()),
        "components": parts,
    }


def sequence(step: int, n: int, whole: bool = False) -> Json:
    """The same sequence for the same (step, n), always with the hostile tokens in it."""
    draw = random.Random(1000 * step + n)
    ids = [draw.randrange(len(VOCABULARY) - 4) for _ in range(26)]
    ids[3], ids[4], ids[5], ids[6] = VOCABULARY.index(HOSTILE), VOCABULARY.index(BIDI), 5, 19
    ids.append(VOCABULARY.index("<eos>"))
    tokens = [token(draw, pos, i, math.exp(-step / 40), whole) for pos, i in enumerate(ids)]
    ratios = [one["log_ratio"] for one in tokens]
    return {
        "object": "sequence",
        "step": step,
        "n": n,
        "problem": 17 * step + n,
        "prompt": "Tom has 3 apples and buys 4 more. *How many* <b>apples</b> does Tom have?\nAnswer:",
        "completion": "".join(one["text"] for one in tokens),
        "answer": "7",
        "correct": n % 2 == 0,
        "truncated": n == 3,
        "length": len(tokens),
        "log_ratio_mean": sum(ratios) / len(ratios),
        "log_ratio_min": min(ratios),
        "tokens": tokens,
    }


def heatmap(first: int, last: int, whole: bool = False) -> Json:
    """Rows lose their own probability; realised is the prediction with interference; ``whole``: and what was sent."""
    draw = random.Random(first * 1000 + last)
    rows, columns = list(range(4, 14)), list(range(14))
    predicted = [
        [-abs(draw.gauss(0.02, 0.01)) if row == column else draw.gauss(0.002, 0.004) for column in columns]
        for row in rows
    ]
    realised = [[0.6 * value + draw.gauss(0, 0.004) for value in line] for line in predicted]
    sent = [[0.02 * (row + column) * (row != column and (row + column) % 3 == 0) for column in columns] for row in rows]
    return {
        "object": "heatmap",
        "kind": "routing",
        "from_step": first,
        "to_step": last,
        "states": 9 * (last - first + 1),
        "rows": [{"id": i, "text": VOCABULARY[i], "count": 40 - i} for i in rows],
        "columns": [{"id": i, "text": VOCABULARY[i]} for i in columns],
        "predicted": predicted,
        "realised": realised,
        "plain": [[0.8 * value for value in line] for line in predicted],
        "routed": sent if whole else None,
        "balance": {"suppressed": 1234, "released": 0.4375, "routed": 0.25, "empty_rate": 0.0625} if whole else None,
    }


class FakeApi:
    """Serves a ``World`` on a free loopback port: ``with FakeApi() as api: api.url``. ``accepts`` is the token."""

    def __init__(self, port: int = 0) -> None:
        self.world = World()
        self.accepts = TOKEN
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self, method: str) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                address = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(address.query).items()}
                try:
                    if self.headers.get("Authorization") != f"Bearer {fake.accepts}":
                        raise Refused(401, "Not authenticated", "The bearer token is missing or wrong.")
                    if address.path == "/readyz":
                        status, answer = 200, {"status": "ready", "checks": {}}
                    else:
                        status, answer = fake.world.answer(method, address.path.removeprefix("/v1"), query, body)
                except Refused as refused:
                    status, answer = refused.status, refused.body
                content = b"" if status == 204 else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self._do("GET")

            def do_POST(self) -> None:
                self._do("POST")

            def do_DELETE(self) -> None:
                self._do("DELETE")

            def log_message(self, *_: object) -> None:
                pass

        self._handler = Handler
        self._listen(port)
        self.url = f"http://127.0.0.1:{self.port}"

    def _listen(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; fine if it has."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reopen(self) -> None:
        """Listen again at the same address."""
        self._listen(self.port)
