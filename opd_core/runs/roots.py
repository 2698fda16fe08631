"""Which local files may be read: those below the directories that the operator has named.

The API asks when a job is submitted, the trainer again when it reads: links may change in between.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from opd_core.spec import UserError


def below_roots(path: str | os.PathLike[str], roots: Sequence[Path], *, variable: str, param: str) -> Path:
    """``path`` with symlinks resolved, if that lies below one of ``roots`` (absolute, resolved); else UserError.

    ``variable`` is the environment variable that the roots come from, for the message. The check is made before
    anything else is said about the path, so that an answer never tells whether a file outside the roots exists.
    """
    resolved = _resolved(os.fspath(path))
    if resolved is not None and any(resolved.is_relative_to(root) for root in roots):
        return resolved
    where = "below " + ", ".join(map(str, roots)) if roots else "none: it is not set"
    raise UserError(
        f"{param}: {os.fspath(path)!r} is not the absolute path of something that may be read; "
        f"{variable} of the service allows {where}",
        param=param,
        code="path_not_allowed",
    )


def _resolved(path: str) -> Path | None:
    """None for what names no file: a relative path, or one with a NUL or half of a surrogate pair."""
    if not path.startswith("/"):
        return None
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return None
