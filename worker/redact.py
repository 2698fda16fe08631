"""Take secrets out of text before it is stored: values of secret-looking variables, and credentials by shape."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY", re.IGNORECASE)
_SHORTEST = 8  # shorter values ("true", "1") are settings, and hiding them would garble the text
_SHAPES = (
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+(@)"), rf"\1{_HIDDEN}\2"),  # user:password@host
    (re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{8,}"), rf"\1{_HIDDEN}"),
    (re.compile(r"\b(?:hf|sk|ghp|gho)_[A-Za-z0-9_-]{8,}"), _HIDDEN),
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """``text`` with every known secret replaced by ``[redacted]``; ``environment`` defaults to the process's."""
    for name, value in (os.environ if environment is None else environment).items():
        if len(value) >= _SHORTEST and _SECRET_NAME.search(name):
            text = text.replace(value, _HIDDEN)
    for shape, replacement in _SHAPES:
        text = shape.sub(replacement, text)
    return text
