"""Start the dashboard: ``python -m dashboard.serve --host 127.0.0.1 --port 8501``.

It talks to the API of OPD_API_URL with the token of OPD_API_TOKEN, of OPD_SECRETS_DIR/opd_api_token or of the local
service, and has no access control of its own: whoever reaches it sees and steers what that token may.
"""

from __future__ import annotations

import argparse
import os
import sys

from dashboard.config import APP, streamlit_flags


def main() -> None:
    """Become the Streamlit server: same process, same signals."""
    parser = argparse.ArgumentParser(prog="python -m dashboard.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default=8501, type=int, help="port to listen on")
    parser.add_argument(
        "--name", action="append", default=[], help="a host name under which browsers may ask for it, beside localhost"
    )
    options = parser.parse_args()
    names = [f"--server.allowedHosts={name}" for name in options.name]
    flags = [*streamlit_flags(), *names, f"--server.address={options.host}", f"--server.port={options.port}"]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), *flags]
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
