"""Values on their way into SQL and JSON."""

from __future__ import annotations

import math
import re
from typing import Any

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def finite(value: Any) -> Any:
    """The same JSON value with NaN and infinities as None: neither JSON nor PostgreSQL has them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def storable(text: str) -> str:
    """Text that every database takes: PostgreSQL has no NUL, UTF-8 no lone surrogates."""
    return _UNSTORABLE.sub("\ufffd", text)
