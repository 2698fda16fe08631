"""How the dashboard's Streamlit server is started. Imports nothing, so that a launcher can read it cheaply."""

from __future__ import annotations

from pathlib import Path

APP = Path(__file__).with_name("server.py")
THEME = Path(__file__).with_name("theme.toml")


def streamlit_flags() -> list[str]:
    """Flags for ``streamlit run dashboard/app.py``: theme, privacy and safety.

    Streamlit reads ``.streamlit/config.toml`` from the working directory only, so everything travels as flags.
    Address and port are the launcher's; flags given after these win.
    """
    return [
        f"--theme.base={THEME}",
        "--server.headless=true",
        "--server.address=127.0.0.1",
        # Another site's name that points here is no name of ours; add the dashboard's own name where it has one.
        "--server.allowedHosts=127.0.0.1",
        "--server.allowedHosts=localhost",
        "--server.fileWatcherType=none",
        "--server.enableXsrfProtection=true",
        "--server.enableAgentApi=false",
        "--server.maxUploadSize=1",
        "--server.showEmailPrompt=false",
        "--browser.gatherUsageStats=false",
        "--client.toolbarMode=viewer",
        "--client.showErrorDetails=type",
        "--runner.magicEnabled=false",
        # Python looks for garbage by itself once there is enough of it; searching everything after each refresh of each
        # viewer's panel was two thirds of the server's work.
        "--runner.postScriptGC=false",
        # A range slider is told apart by its default, which our widgets, set from the URL, have on top.
        "--global.disableWidgetStateDuplicationWarning=true",
    ]
