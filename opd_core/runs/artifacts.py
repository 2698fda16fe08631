"""A run's files behind fsspec: plain directories locally, objects remotely.

A published directory is complete if and only if its ``manifest.json`` exists: it is written last. Locally every
write goes to a temporary name first and is renamed, so a reader never sees half a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

MANIFEST = "manifest.json"
START = "start"
"""The folder with the student that a job goes out from, where its spec says ``from``."""
Names = list[str]
_CHUNK = 1 << 20


class CorruptArtifact(Exception):
    """A published directory that is not what its manifest says."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"artifact {name!r} is damaged: {detail}")
        self.name = name
        self.detail = detail


def check_name(name: str) -> str:
    """The relative name itself. Raises ValueError for anything that could leave the run's directory."""
    parts = name.split("/")
    if not name or "\\" in name or "\x00" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"not a file name inside a run directory: {name!r}")
    return name


class RunFiles:
    """One run directory: a plain path or an fsspec URL. Names are relative and use '/'.

    ``may_write`` is called before anything is changed; it may wait (``opd_core.runs.deadline``).
    """

    def __init__(self, url: str | os.PathLike[str], may_write: Callable[[], None] = lambda: None) -> None:
        self._may_write = may_write
        self.url = os.fspath(url).rstrip("/")
        # Listings are never remembered: another process may have written since.
        self._fs, root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def _path(self, name: str) -> str:
        return f"{self._root}/{check_name(name)}"

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a whole file at once: a reader sees the old content or the new one."""
        path = self._path(name)
        self._may_write()
        if not self._local:
            self._fs.pipe_file(path, data)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                _flush(file)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(target.parent)

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON (strict: NaN and infinities raise ValueError)."""
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
        # A lone surrogate of a byte-level vocabulary has no UTF-8 form; JSON's escape keeps it.
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = json.dumps(value, allow_nan=False, indent=1).encode()
        self.write_bytes(name, data)

    def read_bytes(self, name: str) -> bytes:
        """The file's content. Raises FileNotFoundError."""
        return cast(bytes, self._fs.cat_file(self._path(name)))

    def read_json(self, name: str) -> Any:
        """The file's JSON value. Raises FileNotFoundError, or CorruptArtifact when it is no JSON."""
        data = self.read_bytes(name)
        try:
            return json.loads(data)
        except ValueError as error:
            raise CorruptArtifact(name, f"not JSON ({error})") from error

    def exists(self, name: str) -> bool:
        """Whether a file or directory of that name exists."""
        return bool(self._fs.exists(self._path(name)))

    def size(self, name: str) -> int:
        """Bytes of a file. Raises FileNotFoundError."""
        return int(self._fs.size(self._path(name)))

    def list(self, folder: str = "") -> Names:
        """Names directly below a folder, sorted; [] when it is missing. Unfinished files are not listed."""
        path = self._path(folder) if folder else self._root
        self._fs.invalidate_cache(path)
        try:
            entries = self._fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries}
        return sorted(name for name in names if not name.startswith(".") and not name.endswith(".tmp"))

    def publish(self, local: Path, name: str, *, manifest: dict[str, Any]) -> dict[str, Any]:
        """Move a local directory's files to ``name`` and make them visible at once; ``local`` is used up.

        Returns the manifest: the one given plus "files": [{name, size, sha256}]. Replaces whatever was there.
        """
        path = self._path(name)
        names = sorted(file.relative_to(local).as_posix() for file in local.rglob("*") if file.is_file())
        names = [file for file in names if file != MANIFEST]
        complete = {**manifest, "files": [_describe(local / file, file) for file in names]}
        encoded = json.dumps(complete, indent=1, allow_nan=False).encode()
        self._may_write()
        if self._local:
            self._publish_locally(local, Path(path), names, encoded)
        else:
            # Without its manifest the old directory is no longer complete: nobody reads a mixture.
            self.remove(name)
            for file in names:
                self._fs.put_file(str(local / file), f"{path}/{file}")
            self._fs.pipe_file(f"{path}/{MANIFEST}", encoded)
        shutil.rmtree(local, ignore_errors=True)
        return complete

    def _publish_locally(self, local: Path, target: Path, names: Names, manifest: bytes) -> None:
        staging = target.with_name(f"{target.name}.tmp")
        if staging != local:
            shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True, exist_ok=True)
        for name in names:
            file = staging / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if staging != local:
                shutil.move(local / name, file)
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        with (staging / MANIFEST).open("wb") as handle:
            handle.write(manifest)
            _flush(handle)
        for folder in {(staging / name).parent for name in [*names, MANIFEST]}:
            _sync_directory(folder)
        shutil.rmtree(target, ignore_errors=True)
        staging.replace(target)
        _sync_directory(target.parent)

    def sweep(self, folder: str) -> None:
        """Remove what a writer that was killed left unfinished directly below a folder. For its only writer."""
        if not self._local:
            return
        self._may_write()
        for left in Path(self._path(folder)).glob("*.tmp"):
            shutil.rmtree(left, ignore_errors=True)

    def fetch(self, name: str, local: Path) -> dict[str, Any]:
        """Copy a published directory to ``local``, checking every size and sha256; returns its manifest.

        Raises FileNotFoundError when it was never completed, CorruptArtifact when it is not what was published.
        """
        manifest = self.read_json(f"{name}/{MANIFEST}")
        for entry in _files_of(name, manifest):
            target = local / entry["name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            digest, size = hashlib.sha256(), 0
            try:
                with self.open(f"{name}/{entry['name']}") as source, target.open("wb") as sink:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        size += len(chunk)
                        sink.write(chunk)
            except FileNotFoundError as error:
                raise CorruptArtifact(name, f"{entry['name']} is missing") from error
            if size != entry["size"] or digest.hexdigest() != entry["sha256"]:
                raise CorruptArtifact(name, f"{entry['name']} is not the file that was written")
        return cast(dict[str, Any], manifest)

    def adopt(self, other: RunFiles, source: str, name: str, *, folder: str = "") -> None:
        """Copy ``folder`` (or all) of another run's published directory ``source`` to ``name``, and publish it here.

        Raises FileNotFoundError when it is gone. Local files are linked: a published file never changes.
        """
        entries = _files_of(source, other.read_json(f"{source}/{MANIFEST}"))
        prefix = f"{folder}/" if folder else ""
        kept = [
            {**entry, "name": entry["name"].removeprefix(prefix)}
            for entry in entries
            if entry["name"].startswith(prefix)
        ]
        for entry in kept:
            self._adopt_file(other._path(f"{source}/{prefix}{entry['name']}"), self._path(f"{name}/{entry['name']}"))
        self.write_json(f"{name}/{MANIFEST}", {"files": kept})

    def _adopt_file(self, source: str, target: str) -> None:
        if not self._local:
            self._fs.copy(source, target)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)

    def remove_all(self) -> None:
        """Remove the whole run directory; fine if it is missing."""
        self._fs.invalidate_cache(self._root)
        if self._fs.exists(self._root):
            self._fs.rm(self._root, recursive=True)

    def remove(self, name: str) -> None:
        """Remove a file or a directory; fine if it is missing."""
        path = self._path(name)
        self._may_write()
        self._fs.invalidate_cache(path)
        if self._fs.exists(path):
            self._fs.rm(path, recursive=True)

    def open(self, name: str, mode: str = "rb") -> IO[Any]:
        """Open a file. Writing creates the folders above it."""
        path = self._path(name)
        if self._local and mode[0] in "wax":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        return cast(IO[Any], self._fs.open(path, mode))


def job_files(artifacts_url: str, job_id: str) -> RunFiles:
    """The run directory of a service job."""
    return RunFiles(f"{artifacts_url}/jobs/{check_name(job_id)}")


def local_folder(artifacts_url: str) -> Path | None:
    """Where the artifacts are on this machine's file systems; None for an object store."""
    fs, root = fsspec.url_to_fs(artifacts_url)
    return Path(root) if isinstance(fs, LocalFileSystem) else None


def _describe(path: Path, name: str) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": name, "size": path.stat().st_size, "sha256": digest}


def _files_of(name: str, manifest: Any) -> list[dict[str, Any]]:
    try:
        entries = [
            {"name": check_name(entry["name"]), "size": entry["size"], "sha256": entry["sha256"]}
            for entry in manifest["files"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptArtifact(name, f"{MANIFEST} does not list its files") from error
    return entries


def _flush(file: BinaryIO | IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Make a rename durable: the directory entry is data too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
