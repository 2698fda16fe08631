"""Questions and answers as the fake service gives them: closed when they are looked at for the second time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

WHY = "a statistic of the whole batch, taken from 4 of its 32 sequences"


class Desk:
    """``fail`` is the error with which the next questions end; None = they are answered."""

    def __init__(self, sequence: Callable[[int, int], Json]) -> None:
        self.asked: list[Json] = []
        self.fail: Json | None = None
        self._sequence = sequence
        self._looked: dict[str, int] = {}

    def concerns(self, rest: list[str]) -> bool:
        """Whether the address below a job is one of a question."""
        return rest[:1] in (["probe"], ["questions"]) or rest[2:] == ["replan"]

    def answer(self, job_id: str, rest: list[str], body: Json | None) -> tuple[int, Json] | None:
        """Status and body; None for a question that nobody asked."""
        if rest[0] == "questions":
            known = next((one for one in self.asked if one["id"] == rest[1]), None)
            return None if known is None else (200, self._look(known))
        step = {"step": int(rest[1])} if rest[0] == "steps" else {}
        question = {
            "object": "question",
            "id": f"question_{len(self.asked)}",
            "job_id": job_id,
            "kind": "replan" if step else "probe",
            "status": "waiting",
            "phase": "waiting for a worker",
            "request": {**(body or {}), **step},
            "created_at": "2026-11-20T12:00:00+00:00",
            "finished_at": None,
            "error": None,
            "result": None,
        }
        self.asked.append(question)
        return 202, question

    def _look(self, question: Json) -> Json:
        seen = self._looked[question["id"]] = self._looked.get(question["id"], 0) + 1
        if seen == 1:
            return question | {"status": "working", "phase": "loading *models*"}
        if self.fail is not None:
            return question | {"status": "failed", "error": self.fail, "phase": "failed"}
        make = self._replan if question["kind"] == "replan" else self._probe
        return question | {"status": "answered", "phase": "answered", "result": make(question["request"])}

    def _replan(self, request: Json) -> Json:
        recorded = self._sequence(request["step"], request["sequences"][0])
        replanned = copy.deepcopy(recorded)
        for token in replanned["tokens"]:
            token |= {"coefficient": 0.5 * token["coefficient"], "gate": 0.5, "gates": {"tip": 0.5}, "value": None}
            token |= {"student_top": [], "teacher_top": [], "probe": None}
        names = ("log_ratio", "return", "advantage", "gate", "coefficient", "value")
        force = {"recorded": -0.5, "replanned": -0.25, "recorded_change": -0.1, "replanned_change": -0.05}
        return {
            "object": "replan",
            "step": request["step"],
            "recipe": request["recipe"],
            "method": request["method"],
            "sequences": [
                {
                    "recorded": recorded,
                    "replanned": replanned,
                    "difference": [dict.fromkeys(names) for _ in recorded["tokens"]],
                    "forces": [[{"id": t["id"], "text": t["text"], **force}] for t in recorded["tokens"]],
                }
            ],
            "marks": {
                "advantage": {"exact": True, "reasons": []},
                "gate:tip": {"exact": False, "reasons": [WHY]},
                "coefficient": {"exact": False, "reasons": [WHY]},
            },
            "recorded_marks": {"force": {"exact": True, "reasons": []}},
        }

    def _probe(self, request: Json) -> Json:
        sequence = self._sequence(1, 0)
        for token in sequence["tokens"]:
            token["probe"] = None
        if request["checkpoint"] is None:  # another student writes something else from token 7 on
            sequence["tokens"][7] |= {"id": 99, "text": " else"}
        return {
            "object": "probe",
            "checkpoint": request["checkpoint"] or "step-000060.a1",
            "step": 60,
            "sequence": sequence | {"prompt": request["prompt"], "correct": None, "answer": None},
            "marks": {"gate": {"exact": False, "reasons": [WHY]}},
            "notes": ["a prompt of your own has no verified answer"],
        }
