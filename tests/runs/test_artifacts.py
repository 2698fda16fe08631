import json
import uuid

import pytest

from opd_core.runs.artifacts import CorruptArtifact, RunFiles, check_name, job_files
from tests.s3 import s3_server


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        yield s3.url


@pytest.fixture(params=["local", "remote", "s3"])
def files(request, tmp_path):
    """A run directory on disk, one in a store that has no rename, and one in a real object store."""
    if request.param == "local":
        return RunFiles(tmp_path / "run")
    if request.param == "s3":
        return RunFiles(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}/run")
    return RunFiles(f"memory://{uuid.uuid4().hex}/run")


@pytest.fixture
def folder(tmp_path):
    local = tmp_path / "made"
    (local / "sub").mkdir(parents=True)
    (local / "a.bin").write_bytes(b"alpha" * 1000)
    (local / "sub" / "b.bin").write_bytes(b"beta")
    return local


def test_bytes_and_json_come_back(files):
    files.write_bytes("deep/er/x.bin", b"\x00\x01")
    files.write_json("x.json", {"text": "grüße \ud800", "n": [1, 2.5, None]})
    assert files.read_bytes("deep/er/x.bin") == b"\x00\x01"
    assert files.read_json("x.json") == {"text": "grüße \ud800", "n": [1, 2.5, None]}
    assert files.size("deep/er/x.bin") == 2
    assert files.list() == ["deep", "x.json"]
    assert files.list("deep") == ["er"]
    with pytest.raises(ValueError):
        files.write_json("x.json", float("nan"))
    assert files.read_json("x.json")["n"] == [1, 2.5, None]


def test_what_is_missing(files):
    with pytest.raises(FileNotFoundError):
        files.read_bytes("nothing")
    assert not files.exists("nothing")
    assert files.list("nothing") == []
    assert files.list() == []
    files.remove("nothing")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../x", "a//b", "a/", ".", "./a", "a\\b", "a\x00"])
def test_names_never_leave_the_run_directory(files, name):
    for use in (files.read_bytes, files.exists, files.remove, files.open, check_name):
        with pytest.raises(ValueError, match="run directory"):
            use(name)
    with pytest.raises(ValueError, match="run directory"):
        files.write_bytes(name, b"")
    with pytest.raises(ValueError):
        job_files("file:///tmp", f"../{name}")


def test_a_published_directory_comes_back(files, folder, tmp_path):
    manifest = files.publish(folder, "checkpoints/s1", manifest={"step": 1})
    assert manifest["step"] == 1
    assert [entry["name"] for entry in manifest["files"]] == ["a.bin", "sub/b.bin"]
    assert manifest["files"][0]["size"] == 5000
    assert not folder.exists(), "a published directory is used up"
    assert files.list("checkpoints") == ["s1"]
    assert files.fetch("checkpoints/s1", tmp_path / "back") == manifest
    assert (tmp_path / "back" / "sub" / "b.bin").read_bytes() == b"beta"
    files.remove("checkpoints/s1")
    assert files.list("checkpoints") == []


def test_publishing_again_replaces_everything(files, folder, tmp_path):
    files.publish(folder, "student", manifest={"step": 1})
    folder.mkdir()
    (folder / "c.bin").write_bytes(b"c")
    files.publish(folder, "student", manifest={"step": 2})
    assert files.fetch("student", tmp_path / "back")["step"] == 2
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["c.bin"]
    assert files.list("student") == ["c.bin", "manifest.json"]


def test_leftovers_of_a_dead_writer_are_neither_listed_nor_in_the_way(tmp_path, folder):
    files = RunFiles(tmp_path / "run")
    leftover = tmp_path / "run" / "checkpoints" / "s1.tmp"
    leftover.mkdir(parents=True)
    (leftover / "half.bin").write_bytes(b"ha")
    assert files.list("checkpoints") == []
    manifest = files.publish(folder, "checkpoints/s1", manifest={})
    assert [entry["name"] for entry in manifest["files"]] == ["a.bin", "sub/b.bin"]
    assert files.list("checkpoints/s1") == ["a.bin", "manifest.json", "sub"]


def test_a_directory_without_its_manifest_is_not_complete(files, folder, tmp_path):
    files.publish(folder, "s1", manifest={})
    files.remove("s1/manifest.json")
    with pytest.raises(FileNotFoundError):
        files.fetch("s1", tmp_path / "back")


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: files.write_bytes("s1/a.bin", b"alphA" * 1000),
        lambda files: files.write_bytes("s1/a.bin", b"short"),
        lambda files: files.remove("s1/a.bin"),
        lambda files: files.write_bytes("s1/manifest.json", b"{"),
        lambda files: files.write_json("s1/manifest.json", {"files": [{"name": "a.bin"}]}),
        lambda files: files.write_json(
            "s1/manifest.json", {"files": [{"name": "../../x", "size": 1, "sha256": "0" * 64}]}
        ),
    ],
    ids=["bit", "size", "missing", "manifest", "manifest-fields", "traversal"],
)
def test_damage_is_found(files, folder, tmp_path, damage):
    files.publish(folder, "s1", manifest={})
    damage(files)
    with pytest.raises(CorruptArtifact):
        files.fetch("s1", tmp_path / "back")


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch):
    files = RunFiles(tmp_path)
    files.write_bytes("x", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_bytes("x", b"new")
    assert files.read_bytes("x") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_manifest_is_plain_json(tmp_path, folder):
    RunFiles(tmp_path / "run").publish(folder, "s1", manifest={"kind": "training"})
    text = (tmp_path / "run" / "s1" / "manifest.json").read_text()
    assert json.loads(text)["kind"] == "training"


def test_a_published_folder_is_adopted_by_another_run_and_outlives_its_source(files, folder, tmp_path):
    other = RunFiles(files.url.removesuffix("run") + "other")
    files.publish(folder, "checkpoints/s1", manifest={"step": 1})
    other.adopt(files, "checkpoints/s1", "start", folder="sub")
    other.adopt(files, "checkpoints/s1", "all")
    files.remove_all()
    assert files.list() == []
    files.remove_all()
    assert [file["name"] for file in other.fetch("start", tmp_path / "got")["files"]] == ["b.bin"]
    assert (tmp_path / "got" / "b.bin").read_bytes() == b"beta"
    assert len(other.fetch("all", tmp_path / "whole")["files"]) == 2
    with pytest.raises(FileNotFoundError):
        other.adopt(files, "checkpoints/s1", "again")


def test_what_another_process_has_written_is_seen(files):
    """An object store's client may remember what it has listed: a reader must not."""
    assert files.list() == []
    assert not files.exists("late/x.json")
    type(files._fs).clear_instance_cache()  # as in another process
    other = RunFiles(files.url)
    assert files._local or other._fs is not files._fs
    other.write_json("late/x.json", 1)
    assert files.exists("late/x.json")
    assert files.list() == ["late"]
    assert files.list("late") == ["x.json"]
    other.remove("late")
    assert not files.exists("late/x.json")
