"""Settings of the service, read from OPD_* environment variables. The same for every door."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)


def _directories(value: object) -> object:
    """'a:b' -> absolute directories, symlinks resolved. An empty string is no directory at all."""
    if isinstance(value, str):
        value = [part for part in value.split(":") if part]
    if isinstance(value, list | tuple):
        return tuple(Path(part).expanduser().resolve() for part in value)
    return value


Roots = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_directories)]


LogFormat = Literal["console", "json"]


class Settings(BaseSettings):
    """``Settings()`` reads the environment; keyword arguments win over it.

    URLs may hold passwords, so they are left out of the repr like the token.
    """

    model_config = SettingsConfigDict(env_prefix="OPD_", extra="ignore", validate_default=True)

    home: Annotated[Path, BeforeValidator(lambda value: Path(value).expanduser().absolute())] = Path("~/.opd")
    database_url: str = Field("", repr=False, description="Default sqlite:///{home}/opd.db.")
    redis_url: str | None = Field(None, repr=False, description="redis://, rediss:// or unix:///path?db=0")
    artifacts_url: str = Field("", repr=False, description="fsspec URL. Default file://{home}/artifacts.")
    api_url: str = "http://127.0.0.1:8321"
    api_token: SecretStr | None = None
    endpoints: Annotated[Path | None, Field(description="Servers that teach or write, see runs/endpoints.py.")] = None
    model_roots: Roots = ()
    data_roots: Roots = ()
    lease_s: float = Field(30.0, gt=0, description="A job whose worker is silent for so long is taken back.")
    drain_s: float = Field(60.0, gt=0, description="Time for a last checkpoint when a worker is asked to stop.")
    cancel_grace_s: float = Field(5.0, gt=0, description="Time for a last checkpoint when a job is cancelled.")
    question_s: float = Field(300.0, gt=0, description="A what-if or probe question that takes longer fails.")
    disk_low_mb: int = Field(
        1024,
        ge=0,
        description="With less free space (10^6 bytes) where runs are written no job starts, and one that runs saves a "
        "checkpoint and waits. 0 = never.",
    )
    run_code: bool = Field(
        False, description="Let jobs run programs that their model wrote, in a sandbox (unit_tests)."
    )
    log_format: LogFormat = Field("console", description="Log lines for people, or JSON objects.")
    reconcile: bool = Field(True, description="Run the reconciler inside the API process.")
    reconcile_every_s: float = Field(2.0, gt=0)
    requests_per_s: float = Field(200.0, gt=0, description="What one token may ask per second, in the long run.")
    requests_burst: int = Field(1000, ge=1, description="What one token may ask at once after a while of silence.")
    streams_per_token: int = Field(256, ge=1, description="The most live streams that one token may hold open.")
    streams_total: int = Field(1024, ge=1, description="The most live streams that may be open.")
    waiting_per_token: int = Field(1000, ge=1, description="The most queued or paused jobs of one token.")
    waiting_total: int = Field(10_000, ge=1, description="The most queued or paused jobs.")
    ring_after_s: float = Field(30.0, gt=0, description="Ring again for a job that waits beside an idle worker.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """After the environment the folder of OPD_SECRETS_DIR: one file for each, such as opd_database_url."""
        del dotenv_settings, file_secret_settings
        sources = (init_settings, env_settings)
        folder = os.environ.get("OPD_SECRETS_DIR")
        return sources if folder is None else (*sources, SecretsSettingsSource(settings_cls, secrets_dir=folder))

    @model_validator(mode="after")
    def _below_home(self) -> Settings:
        self.database_url = self.database_url or f"sqlite:///{self.home}/opd.db"
        self.artifacts_url = (self.artifacts_url or f"file://{self.home}/artifacts").rstrip("/")
        return self

    @property
    def endpoints_file(self) -> Path:
        """Where the operator registers servers that teach or write."""
        return self.endpoints or self.home / "endpoints.yaml"

    @property
    def token_file(self) -> Path:
        """The generated token of an embedded service, mode 0600."""
        return self.home / "token"

    def token(self) -> str | None:
        """The bearer token: OPD_API_TOKEN, else the token file's content, else None."""
        if self.api_token is not None:
            return self.api_token.get_secret_value() or None
        if self.token_file.is_file():
            return self.token_file.read_text(encoding="utf-8").strip() or None
        return None
