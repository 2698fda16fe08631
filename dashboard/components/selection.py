"""What is looked at: run, step, sequence, token. The URL holds it, so every view is a link.

Streamlit empties the query string when another page is opened from the navigation; the session remembers it.
Widgets are set from here before they are drawn and write back in their callbacks: the URL is the only truth.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import streamlit as st

KEYS = (
    "job",
    "step",
    "seq",
    "token",
    "color",
    "second",
    "other",
    "from",
    "to",
    "quantity",
    "gate",
    "whatif",
    "probe",
    "against",
    "probe2",
    "token2",
    "source",
    "maps",
)
_MEMORY = "selection"


def restore() -> None:
    """Call first on every page about one run: puts the remembered selection back into an empty URL."""
    if "job" not in st.query_params:
        for key, value in st.session_state.get(_MEMORY, {}).items():
            st.query_params[key] = value
    _remember()


def _remember() -> None:
    st.session_state[_MEMORY] = {key: st.query_params[key] for key in KEYS if key in st.query_params}


def text(key: str) -> str | None:
    """The value as written in the URL."""
    return st.query_params.get(key)


def number(key: str) -> int | None:
    """The value as a number >= 0; None when it is absent or something else."""
    value = st.query_params.get(key, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def choose(**changes: str | int | None) -> None:
    """Write to the URL; None removes. Another run starts without step, sequence and token."""
    if "job" in changes and changes["job"] != st.query_params.get("job"):
        changes = {**dict.fromkeys(KEYS), **changes}
    write(changes)
    _remember()


def write(changes: Mapping[str, str | int | None]) -> None:
    """Into the URL and nowhere else; None removes."""
    for key, value in changes.items():
        if value is not None:
            st.query_params[key] = str(value)
        elif key in st.query_params:
            del st.query_params[key]


def choose_known(key: str, value: object, known: Container[int], **others: int | None) -> None:
    """Write a list's choice to the URL; None removes. When the list has changed meanwhile, a browser may send the text
    of an entry that is gone: that is nobody's choice.
    """
    if value is None or (isinstance(value, int) and value in known):
        choose(**{key: value, **others})


def slider_key(name: str, value: object, *, moves: bool) -> str:
    """The key of a slider that shows ``value``: another one for every value while the page ``moves`` it by itself.

    The browser sends all widgets with every refresh. A slow one may send what a slider showed before it was moved:
    under the same key that would look like the reader's choice, and end the following.
    """
    return f"{name}_{value}" if moves else name


def choose_moved(key: str, value: int, shown: int) -> None:
    """Write where a slider that was drawn at ``shown`` was moved to.

    Right after another page was left, one that the page moves by itself may be reported as changed to the very value it
    was drawn at: that is nobody's choice, and would end the following.
    """
    if value != shown:
        choose(**{key: value})
