"""Checkpoints and the download of their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path
from fastapi.responses import StreamingResponse

from api import schemas as s
from api import views
from api.problems import not_found, responses
from api.routers.parameters import JobDep
from api.services import ServicesDep
from opd_core.runs.ids import ID_PATTERN
from opd_core.runs.rows import Checkpoint, Job

router = APIRouter(prefix="/v1/jobs/{job_id}/checkpoints", tags=["checkpoints"])
_CHUNK = 1 << 18


@router.get("", response_model=s.Page[s.Checkpoint], summary="List checkpoints", responses=responses(404))
def list_checkpoints(job: JobDep, services: ServicesDep) -> s.Page[s.Checkpoint]:
    """Complete ones only, oldest first."""
    found = services.store.list_checkpoints(job.id)
    return s.Page[s.Checkpoint](data=[views.checkpoint(row) for row in found])


def _find(
    job: JobDep, services: ServicesDep, checkpoint_id: Annotated[str, Path(json_schema_extra={"pattern": ID_PATTERN})]
) -> Checkpoint:
    for row in services.store.list_checkpoints(job.id):
        if row.id == checkpoint_id:
            return row
    raise not_found(f"the job has no checkpoint {checkpoint_id!r}", param="checkpoint_id")


CheckpointDep = Annotated[Checkpoint, Depends(_find)]


@router.get(
    "/{checkpoint_id}", response_model=s.Checkpoint, summary="Read a checkpoint's contents", responses=responses(404)
)
def read_checkpoint(checkpoint: CheckpointDep) -> s.Checkpoint:
    """Its files with sizes, checksums and the ids to download them by."""
    return views.checkpoint(checkpoint)


@router.get(
    "/{checkpoint_id}/files/{file_id}",
    response_class=StreamingResponse,
    summary="Download a file",
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        **responses(404),
    },
)
def download_file(
    job: JobDep,
    checkpoint: CheckpointDep,
    services: ServicesDep,
    file_id: Annotated[str, Path(json_schema_extra={"pattern": ID_PATTERN})],
) -> StreamingResponse:
    """The bytes; the ETag is the file's sha256."""
    file = next((entry for entry in checkpoint.files if entry["id"] == file_id), None)
    if file is None:
        raise not_found(f"the checkpoint has no file {file_id!r}", param="file_id")
    name = quote(PurePosixPath(file["name"]).name)
    headers = {
        "Content-Length": str(file["size"]),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "ETag": f'"{file["sha256"]}"',
    }
    content = _read(_open(job, checkpoint, file["name"], services))
    return StreamingResponse(content, headers=headers, media_type="application/octet-stream")


def _open(job: Job, checkpoint: Checkpoint, name: str, services: ServicesDep) -> IO[Any]:
    folder = "" if checkpoint.kind == "export" else "checkpoints/"
    try:
        return services.files(job.id).open(f"{folder}{checkpoint.name}/{name}")
    except FileNotFoundError as error:
        raise not_found(f"{name} of checkpoint {checkpoint.name} is no longer stored") from error


def _read(file: IO[Any]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
