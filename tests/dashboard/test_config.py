"""The flags a launcher passes on."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from dashboard.config import APP, THEME, streamlit_flags


def test_flags_are_ones_that_streamlit_knows() -> None:
    import streamlit.config

    known = streamlit.config.get_config_options()
    for flag in streamlit_flags():
        assert flag.removeprefix("--").partition("=")[0] in known
    assert APP.is_file()


def test_theme_defines_light_and_dark_with_the_same_keys() -> None:
    theme = tomllib.loads(THEME.read_text(encoding="utf-8"))["theme"]
    assert set(theme["light"]) == set(theme["dark"])
    assert all(weight % 50 == 0 for weight in theme["headingFontWeights"])


def test_a_launcher_can_read_them_without_streamlit() -> None:
    code = "import sys, dashboard.config; assert 'streamlit' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
