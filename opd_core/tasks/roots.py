"""Which local files a service may read: those below the directories that its operator has named."""

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
    resolved = Path(path).resolve()
    if any(resolved.is_relative_to(root) for root in roots):
        return resolved
    where = "below " + ", ".join(map(str, roots)) if roots else "nowhere: it is not set"
    raise UserError(
        f"{param}: '{path}' is outside the directories that may be read ({variable} allows {where})",
        param=param,
        code="outside_roots",
    )
