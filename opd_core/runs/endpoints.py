"""Servers that the operator has registered, to teach or to write: a spec names one, never an address.

``{OPD_HOME}/endpoints.yaml`` (or OPD_ENDPOINTS) holds::

    big-teacher:
      url: http://10.0.0.5:8000       # an OpenAI-compatible server: vLLM, SGLang
      model: Qwen/Qwen3-32B           # its name there
      key_file: /run/secrets/teacher  # optional; the key itself is nowhere else
      top_k: 20                       # favourites per token that it may be asked for
    fast-writer:
      url: http://10.0.0.6:8000       # a vLLM that students' rows are written by (rollout.endpoint)
      model: Qwen/Qwen3-0.6B
      handover: /mnt/handover         # a folder that trainers and the server see: weights go through it
      handover_there: /data/handover  # what the server calls it, where that is something else
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import Field, HttpUrl, TypeAdapter, ValidationError, field_validator

from opd_core.runs.settings import Settings
from opd_core.spec import UserError, describe
from opd_core.spec.base import Spec


class Endpoint(Spec):
    """One server."""

    url: HttpUrl
    model: str = Field(min_length=1, max_length=256)
    key_file: Path | None = None
    top_k: int = Field(
        20,
        ge=1,
        le=64,
        description="Favourites of a token, and given candidates of a token in one request: vLLM answers at most "
        "--max-logprobs (20 by default).",
    )
    timeout_s: float = Field(60.0, gt=0.0, le=3600.0, description="For one request.")
    patience_s: float = Field(
        120.0, ge=0.0, le=86_400.0, description="How long a server that does not answer is tried again."
    )
    concurrency: int = Field(8, ge=1, le=1024, description="Requests at a time.")
    handover: Path | None = Field(
        None,
        description="A folder that trainers and the server both see: a server that writes rollouts takes the student's "
        "weights from there.",
    )
    handover_there: Path | None = Field(None, description="What the server calls that folder; null = the same.")
    tolerance: float = Field(
        0.05,
        gt=0.0,
        le=1.0,
        description="Nats by which the server's log-probabilities of what it wrote may differ from the trainer's, mean "
        "over tokens: its precision is another one.",
    )

    @field_validator("handover", "handover_there")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError(f"must be an absolute path, not {str(value)!r}")
        return value

    def key(self) -> str | None:
        """The bearer token, read when it is needed."""
        return None if self.key_file is None else self.key_file.read_text(encoding="utf-8").strip()


def endpoints(settings: Settings) -> Mapping[str, Endpoint]:
    """All of them by name; empty where the file does not exist. Raises UserError for a file that is wrong."""
    file = settings.endpoints_file
    if not file.is_file():
        return {}
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        return TypeAdapter(dict[str, Endpoint]).validate_python(data)
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not YAML: {str(error).splitlines()[0]}", code="broken_endpoints") from error
    except ValidationError as error:
        raise UserError(f"{file}: {describe(error).message}", code="broken_endpoints") from error


def endpoint(settings: Settings, name: str, *, param: str) -> Endpoint:
    """The server of that name. Raises UserError with the names there are."""
    known = endpoints(settings)
    if name not in known:
        names = ", ".join(sorted(known)) or "none is registered"
        role = param.partition(".")[0]
        raise UserError(
            f"{param}: there is no {role} server {name!r} ({names}); the operator of the service registers them in "
            f"{settings.endpoints_file.name}",
            param=param,
            code="unknown_endpoint",
        )
    return known[name]


def rollout_endpoint(settings: Settings, name: str) -> Endpoint:
    """The server of that name, to write rollouts. Raises UserError, also where weights cannot be handed over to it."""
    found = endpoint(settings, name, param="rollout.endpoint")
    if found.handover is None:
        raise UserError(
            f"rollout.endpoint: {name!r} is registered without a folder for weights (handover): it can teach, and not "
            "write what the student would",
            param="rollout.endpoint",
            code="unsuitable_endpoint",
        )
    return found
