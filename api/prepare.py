"""Make what the services expect: ``python -m api.prepare``. Asked again it changes nothing.

The newest schema of the database, and the bucket (or folder) of the artifacts.
"""

from __future__ import annotations

import sys

import fsspec
import structlog

from opd_core.runs import database
from opd_core.runs.logs import configure_logs
from opd_core.runs.settings import Settings

log = structlog.get_logger()


def prepare(settings: Settings) -> None:
    """Raises what database and store raise when they cannot be reached."""
    engine = database.connect(settings.database_url)
    database.migrate(engine)
    engine.dispose()
    files, path = fsspec.url_to_fs(settings.artifacts_url, use_listings_cache=False)
    place = path.split("/", 1)[0] if settings.artifacts_url.startswith("s3://") else path
    if not files.exists(place):
        files.makedirs(place, exist_ok=True)
    log.info("prepared", artifacts=place)


def main() -> int:
    """The command line."""
    settings = Settings()
    configure_logs(settings.log_format)
    prepare(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
