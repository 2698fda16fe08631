"""Start a run: from the gallery of recipes, like another run, or from another run's checkpoint.

The address says where it starts: ``recipe=NAME``, ``like=JOB`` or ``fork=JOB&checkpoint=ID``; without one of them the
gallery is shown.
"""

from __future__ import annotations

import streamlit as st

from dashboard import data
from dashboard.components.recipe_gallery import recipe_gallery
from dashboard.components.submit_form import submit_form
from dashboard.shaping import specs
from dashboard.shaping.text import escape_markdown

_BASE = "new_base"  # the spec that the next recipe is laid over: what was filled in before stays


def choose(name: str) -> None:
    """The gallery's callback."""
    st.query_params.from_dict({"recipe": name})


def page() -> None:
    """The gallery, or the form."""
    recipes = {recipe.name: recipe for recipe in data.recipes()}
    params = st.query_params
    title, back = st.columns([4, 1], vertical_alignment="center")
    title.header("New run", anchor=False)
    source = params.get("like") or params.get("fork")
    if source is not None:
        job = data.job(source)
        start, method, name = job.spec | {"name": job.name}, job.resolved_spec.get("method", {}), job.recipe
        if "fork" in params:
            start = specs.fork(start, job.id, params.get("checkpoint") or str(job.latest_checkpoint))
    elif params.get("recipe") in recipes:
        name = params["recipe"]
        start = specs.with_recipe(
            st.session_state.get(_BASE, specs.DEMO_SPEC), name, recipes[name].needs, recipes[name].brings
        )
        method = recipes[name].method
    else:
        if "recipe" in params:
            st.warning(f"There is no recipe {escape_markdown(params['recipe'])}.", icon=":material/info:")
        st.caption("Choose the method to start from. Every variable of it can be changed in the next step.")
        recipe_gallery(choose)
        return
    place = back.empty()
    generation = "_".join(f"{key}-{value}" for key, value in params.to_dict().items())
    spec = submit_form(start, method, recipes[name], generation)
    about = "Back to the gallery. What you filled in stays, without the changes to the method."
    if place.button("Another recipe", icon=":material/view_module:", key="new_another", help=about, width="stretch"):
        st.session_state[_BASE] = {key: value for key, value in spec.items() if key not in ("method", "from")}
        params.clear()
        st.rerun()


page()
