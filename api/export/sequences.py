"""Recorded sequences of the first, the middle and the last step, as many as a small file can hold.

Tokens refer to their texts by id. What is left out is said in sentences.
"""

from __future__ import annotations

import json
from typing import Any

from api import tokens
from api.recorded import Records
from opd_core.runs.records import Row

Json = dict[str, Any]

MAX_BYTES = 3_000_000
MAX_TOKENS = 1000  # of one sequence
MAX_FAVOURITES = 10  # of each model, at each token
# Entries of a token that are lists: their fields in order, behind the token's id.
_LISTS = {
    "student_top": ("logp", "teacher_logp"),
    "teacher_top": ("logp", "student_logp"),
    "route": ("weight",),
    "probe": ("predicted", "realised"),
}


def collect(recorded: Records, vocabulary: list[str], max_bytes: int = MAX_BYTES) -> Json:
    """``steps`` with their ``sequences``, ``texts`` by token id, and what was ``left_out``."""
    known = list(recorded.steps())
    steps = list(dict.fromkeys([known[0], known[len(known) // 2], known[-1]])) if known else []
    numbers = {step: recorded.step(step, ["n"])["n"].to_pylist() for step in steps}
    kept: dict[int, list[Json]] = {step: [] for step in steps}
    texts: dict[int, str] = {}
    left_out, size = [], 0
    # One of each step in turn, so that no step is crowded out by another.
    for place in range(max(map(len, numbers.values()), default=0)):
        for step in steps:
            if place >= len(numbers[step]) or size > max_bytes:
                continue
            sequence = _sequence(recorded.sequence(step, numbers[step][place]), vocabulary, texts)
            size += len(json.dumps(sequence))
            if size > max_bytes:
                break
            kept[step].append(sequence)
            if (shown := len(sequence["tokens"])) < sequence["length"]:
                left_out.append(
                    f"step {step}, sequence {sequence['n']}: the first {shown} of {sequence['length']} tokens are here"
                )
    for step in steps:
        if (missing := len(numbers[step]) - len(kept[step])) > 0:
            left_out.append(f"step {step}: {missing} of {len(numbers[step])} recorded sequences are not in this file")
    if len(known) > len(steps):
        left_out.append(
            f"{len(known)} steps have recorded sequences; this file has the first, the middle and the last of them"
        )
    return {
        "steps": [{"step": step, "recorded": len(numbers[step]), "sequences": kept[step]} for step in steps],
        "texts": texts,
        "left_out": left_out,
    }


def _sequence(row: Row, vocabulary: list[str], texts: dict[int, str]) -> Json:
    length = row["length"]
    found = tokens.sequence({**row, "length": min(length, MAX_TOKENS)}, vocabulary)
    listed = [_token(token.model_dump(by_alias=True), texts) for token in found.tokens]
    return {**found.model_dump(exclude={"tokens", "object"}), "length": length, "tokens": listed}


def _token(token: Json, texts: dict[int, str]) -> Json:
    texts[token["id"]] = token.pop("text")
    del token["pos"]
    for said in token["reply"]:
        texts[said["id"]] = said["text"]
    token["reply"] = [said["id"] for said in token["reply"]]
    if not token["reply"]:
        del token["reply"]
    for name in ("student_top", "teacher_top"):
        token[name] = token[name][:MAX_FAVOURITES]
    for name, fields in _LISTS.items():
        for entry in token[name] or []:
            texts[entry["id"]] = entry["text"]
        if token[name] is not None:
            token[name] = [[entry["id"], *(_short(entry[field]) for field in fields)] for entry in token[name]]
    return {key: _short(value) for key, value in token.items()}


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
