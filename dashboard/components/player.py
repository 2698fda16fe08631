"""Going through the recorded steps by itself.

A panel's clock is set when the page is drawn: starting and stopping draw the page anew.
"""

from __future__ import annotations

import streamlit as st

from dashboard.components import selection
from dashboard.shaping.tokens import nearest, neighbour

_PLAYING, _SWITCHED = "player_playing", "player_switched"


def playing() -> bool:
    """Whether the page goes through the steps."""
    return bool(st.session_state.get(_PLAYING))


def play(on: bool, steps: list[int]) -> None:
    """Start at the selected step, or at the first one when the last is shown; or stop."""
    st.session_state[_PLAYING] = on
    if on and selection.number("step") in (None, *steps[-1:]):
        selection.choose(step=next(iter(steps), None))
    st.session_state[_SWITCHED] = True


def advance(steps: list[int], *, running: bool) -> None:
    """One step on. At the end a running job is followed, a finished one stops."""
    current = nearest(steps, selection.number("step"))
    target = None if current is None else neighbour(steps, current, 1)
    if target is not None:
        selection.choose(step=target)
        return
    st.session_state[_PLAYING] = False
    if running:
        selection.choose(step=None)
    else:
        st.session_state[_SWITCHED] = True


def switched() -> bool:
    """Whether it was started or stopped since the page was last drawn as a whole; asking settles it."""
    return bool(st.session_state.pop(_SWITCHED, False))
