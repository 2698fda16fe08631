import pytest
from pydantic import ValidationError

from opd_core.runs.settings import Settings


def test_defaults_lie_below_home(monkeypatch, tmp_path):
    for name in ("OPD_DATABASE_URL", "OPD_ARTIFACTS_URL", "OPD_REDIS_URL", "OPD_MODEL_ROOTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPD_HOME", str(tmp_path))
    settings = Settings()
    assert settings.database_url == f"sqlite:///{tmp_path}/opd.db"
    assert settings.artifacts_url == f"file://{tmp_path}/artifacts"
    assert settings.redis_url is None
    assert settings.model_roots == ()


def test_roots_are_a_colon_separated_list_with_links_resolved(monkeypatch, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("OPD_MODEL_ROOTS", f"{tmp_path}/link:{tmp_path}/other:")
    assert Settings().model_roots == ((tmp_path / "real").resolve(), (tmp_path / "other").resolve())


def test_no_secret_in_the_repr(tmp_path):
    settings = Settings(
        home=tmp_path,
        api_token="hunter2",
        database_url="postgresql://opd:hunter2@db/opd",
        redis_url="redis://:hunter2@broker/0",
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
    assert settings.token() == "hunter2"


def test_the_token_file_stands_in_for_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("OPD_API_TOKEN", raising=False)
    settings = Settings(home=tmp_path)
    assert settings.token() is None
    settings.token_file.write_text("from-the-file\n")
    assert settings.token() == "from-the-file"


def test_a_senseless_lease_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="lease_s"):
        Settings(home=tmp_path, lease_s=0)
