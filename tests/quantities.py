"""How large the numbers of sequences are, from their tokens as JSON: the slow way to what the API computes."""

from __future__ import annotations

import math
from typing import Any

Json = dict[str, Any]
PLAIN = ["log_ratio", "return", "value", "advantage", "gate", "coefficient", "kl", "entropy_student", "entropy_teacher"]


def quantities(sequences: list[Json]) -> list[Json]:
    """Per name the count, the range, the 98 % quantile of the sizes, and how many are beyond it."""
    values: dict[str, list[float]] = {}
    for token in (token for one in sequences for token in one["tokens"]):
        numbers = {name: token.get(name) for name in PLAIN}
        numbers |= {f"gate:{name}": value for name, value in token.get("gates", {}).items()}
        numbers |= {f"part:{name}": value for name, value in token.get("components", {}).items()}
        own = [one["realised"] for one in token["probe"] or [] if one["id"] == token["id"]]
        numbers["realised"] = 100 * own[0] if own and own[0] is not None else None
        for name, value in numbers.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    return [_quantity(name, found) for name, found in values.items()]


def _quantity(name: str, values: list[float]) -> Json:
    sizes = sorted(map(abs, values))
    limit = sizes[math.ceil(0.98 * len(sizes)) - 1] or sizes[-1]
    limit = max(limit, 1.0) if name.startswith("gate") else limit
    count = sum(size > limit for size in sizes)
    return {
        "name": name, "tokens": len(values), "lowest": min(values), "highest": max(values), "limit": limit,
        "beyond": count,
    }  # fmt: skip
