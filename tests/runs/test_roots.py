"""What counts as below an allowed directory, and that nothing else is said about what does not."""

import pytest

from opd_core.runs.roots import below_roots
from opd_core.spec import UserError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "deep" / "file").write_text("x")
    (tmp_path / "root-secret").mkdir()
    (tmp_path / "root-secret" / "file").write_text("x")
    return (tmp_path / "root").resolve()


def check(path, *roots):
    return below_roots(path, roots, variable="OPD_DATA_ROOTS", param="task.dataset")


def test_what_lies_below_a_root_is_allowed(root):
    assert check(root / "deep" / "file", root) == root / "deep" / "file"
    assert check(f"{root}/deep/../deep//file", root) == root / "deep" / "file"
    assert check(root / "missing", root) == root / "missing"
    assert check(root, root.parent / "elsewhere", root) == root
    (root / "inner").symlink_to(root / "deep")
    assert check(root / "inner" / "file", root) == root / "deep" / "file"


def test_nothing_leads_out(root, monkeypatch):
    (root / "link").symlink_to(root.parent / "root-secret")
    (root / "chain").symlink_to(root / "link")
    (root / "up").symlink_to("..")
    monkeypatch.chdir(root)
    for path in (
        "/etc/passwd",
        f"{root}/../root-secret/file",
        f"{root}-secret/file",
        f"{root}/deep/../../root-secret/file",
        root / "link" / "file",
        root / "chain" / "file",
        root / "up" / "root-secret" / "file",
        "/proc/self/cwd/../root-secret/file",
        "deep/file",
        "",
        "~/x",
        f"file://{root}/deep/file",
        f"{root}/deep/file\x00",
        f"{root}/\ud800",
    ):
        with pytest.raises(UserError) as refused:
            check(path, root)
        assert (refused.value.code, refused.value.param) == ("path_not_allowed", "task.dataset")
        assert str(root) in refused.value.message


def test_the_answer_does_not_tell_what_exists_outside(root):
    def said(path):
        with pytest.raises(UserError) as refused:
            check(path, root)
        return refused.value.message.replace(str(path), "PATH")

    assert said(root.parent / "root-secret" / "file") == said(root.parent / "root-secret" / "missing")


def test_without_roots_nothing_is_allowed(root):
    with pytest.raises(UserError, match="OPD_DATA_ROOTS of the service allows none"):
        check(root / "deep" / "file")


def test_a_loop_of_links_is_no_way_out(root):
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    assert check(root / "a", root).parent == root
