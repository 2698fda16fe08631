"""What a run saved."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from api.schemas.base import Schema


class CheckpointFile(Schema):
    """A file of a checkpoint; download it by ``id``."""

    id: str
    name: str
    size: int
    sha256: str


class Checkpoint(Schema):
    """A complete checkpoint: ``training`` can be resumed, ``export`` is a Hugging Face directory."""

    object: Literal["checkpoint"] = "checkpoint"
    id: str
    name: str
    step: int
    attempt: int
    kind: Literal["training", "export"]
    size_bytes: int
    created_at: datetime
    files: list[CheckpointFile]
