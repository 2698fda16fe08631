"""``python -m cli`` is ``opd``."""

from cli.main import app

app(prog_name="opd")
