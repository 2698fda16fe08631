"""Where the service of this home is: ``{OPD_HOME}/run/service.json``, written by ``opd up``, read by every command."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from opd_core.runs.settings import Settings


@dataclass(frozen=True)
class Address:
    """A running service. ``dashboard_url`` is None when it runs without one."""

    api_url: str
    dashboard_url: str | None
    pid: int


def _file(home: Path) -> Path:
    return home / "run" / "service.json"


def announce(home: Path, address: Address) -> None:
    """Let the commands of other terminals find the service."""
    file = _file(home)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(address), indent=1), encoding="utf-8")
    temporary.replace(file)


def withdraw(home: Path) -> None:
    _file(home).unlink(missing_ok=True)


def announced(home: Path) -> Address | None:
    """What the service of this home wrote down; None when none is running, or the file is not ours."""
    try:
        return Address(**json.loads(_file(home).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def api_url(settings: Settings) -> str:
    """OPD_API_URL, else the announced service of this home, else the default."""
    if "OPD_API_URL" in os.environ:
        return settings.api_url
    here = announced(settings.home)
    return here.api_url if here else settings.api_url
