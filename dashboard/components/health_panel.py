"""The health of a run: a light per diagnostic, and behind each what it measures, its course, causes and remedies."""

from __future__ import annotations

import streamlit as st

from api.schemas import Health, HealthCheck
from dashboard.shaping import health as shape
from dashboard.shaping.text import escape_markdown


def health_panel(health: Health) -> None:
    """All lights, the most urgent first."""
    st.subheader("Health", anchor=False)
    st.caption(
        escape_markdown(shape.headline(health))
        + ". The limits are a reason to look, not a verdict; open a light for its course, usual causes and remedies."
    )
    for alarm in health.alarms:
        st.error(escape_markdown(alarm), icon=":material/notification_important:")
    with st.grid(2, min_column_width=420):
        for check in shape.sorted_checks(health):
            _light(check, health.steps)


def _light(check: HealthCheck, steps: list[int]) -> None:
    color, icon, says = shape.LIGHTS[check.status]
    label = f":{color}-badge[{icon} {check.id} {says}] {escape_markdown(check.title)}"
    # Closed lights hold nothing: a running page would draw eleven curves that nobody sees.
    light = st.expander(label, key=f"health_{check.id}", on_change="rerun")
    if not light.open:
        return
    with light:
        st.text(check.sentence)
        drawn = shape.curve(check, steps)
        if drawn is not None:
            st.echarts_chart(drawn, height=160, key=f"health_chart_{check.id}", alt=f"{check.title}, over the steps")
        st.caption(
            f"**Measures** {escape_markdown(check.measures)} ({escape_markdown(check.unit)}), about "
            f"{escape_markdown(check.variable)}.  \n**Usual causes** {escape_markdown(check.causes)}  \n"
            f"**Try** {escape_markdown(check.remedies)}"
        )
