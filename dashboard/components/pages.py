"""Going to another page on the server's side: after a click that also did something, or one inside a panel."""

from __future__ import annotations

from typing import NoReturn

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

RUNS, NEW_RUN, OVERVIEW = "app_pages/runs.py", "app_pages/new_run.py", "app_pages/overview.py"


def go(page: str, **query: str) -> NoReturn:
    """Leave for a page, with these parameters in its address.

    The browser hears of the change a moment later, and until then its panels go on asking for their refresh. Streamlit
    (1.67) answers what comes while the new page is being drawn with the old page's name, and the browser then hides
    the new page for good. It leaves alone what asks for a panel that is no longer there: so they go first.
    """
    context = get_script_run_ctx()
    assert context is not None, "a page is drawn by Streamlit"
    context.fragment_storage.clear()
    st.switch_page(page, query_params=query)
