"""Checkpoints, and their files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

from api import schemas as s
from api.client.errors import raise_for
from api.client.transport import Transport


class Checkpoints(Transport):
    """List and take home."""

    def checkpoints(self, id: str) -> s.Page[s.Checkpoint]:
        """Complete checkpoints, oldest first."""
        return self._get(s.Page[s.Checkpoint], f"/v1/jobs/{id}/checkpoints")

    def download(self, id: str, checkpoint_id: str, directory: str | os.PathLike[str]) -> list[Path]:
        """Download a checkpoint's files into a directory, checking size and sha256; returns their paths.

        Raises OSError when what arrived is not what was listed.
        """
        checkpoint = self._get(s.Checkpoint, f"/v1/jobs/{id}/checkpoints/{checkpoint_id}")
        return [self._download(id, checkpoint_id, file, Path(directory)) for file in checkpoint.files]

    def _download(self, id: str, checkpoint_id: str, file: s.CheckpointFile, directory: Path) -> Path:
        name = PurePosixPath(file.name)
        if name.is_absolute() or ".." in name.parts or "\\" in file.name:
            raise OSError(f"the service listed a file outside the directory: {file.name!r}")
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.part")
        digest = hashlib.sha256()
        with self._http.stream("GET", f"/v1/jobs/{id}/checkpoints/{checkpoint_id}/files/{file.id}") as response:
            raise_for(response)
            with partial.open("wb") as sink:
                for chunk in response.iter_bytes():
                    digest.update(chunk)
                    sink.write(chunk)
        if partial.stat().st_size != file.size or digest.hexdigest() != file.sha256:
            partial.unlink()
            raise OSError(f"{file.name} arrived damaged; download it again")
        partial.replace(target)
        return target
