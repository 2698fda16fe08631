"""Every published method as a card; choosing one opens the form."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from api.schemas import Recipe
from dashboard import data
from dashboard.shaping import gallery
from dashboard.shaping.text import escape_markdown, words


def recipe_gallery(choose: Callable[[str], None]) -> None:
    """Search, filters, and the shelves of both routes. ``choose`` is a callback that gets the recipe's name."""
    recipes = data.recipes()
    text, route, grade = st.columns([2, 1, 2], vertical_alignment="bottom")
    wanted = text.text_input(
        "Search", key="gallery_text", placeholder="name, idea, paper", type="search", label_visibility="collapsed"
    )
    routes = route.pills(
        "Route",
        list(gallery.ROUTES),
        selection_mode="multi",
        format_func=lambda one: gallery.ROUTES[one][0],
        key="gallery_routes",
        label_visibility="collapsed",
    )
    grades = grade.pills(
        "Evidence", gallery.grades(), selection_mode="multi", key="gallery_grades", label_visibility="collapsed"
    )
    found = gallery.matching(recipes, wanted or "", grades or ())
    shown = [name for name in gallery.ROUTES if not routes or name in routes]
    if not any(recipe.route in shown for recipe in found):
        st.caption(f"None of the {len(recipes)} recipes match.")
    for name in shown:
        shelves = gallery.shelves(found, name)
        if not shelves:
            continue
        title, about = gallery.ROUTES[name]
        st.subheader(f"{title} route", anchor=False, help=about)
        for variable, group in shelves:
            st.markdown(f"**{words(variable).capitalize()}**")
            with st.grid(3, min_column_width=300):
                for recipe in group:
                    _card(recipe, choose)


def _card(recipe: Recipe, choose: Callable[[str], None]) -> None:
    with st.container(border=True, height="stretch", key=f"recipe_{recipe.name}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{escape_markdown(recipe.title)}**", width="stretch")
            color, meaning = gallery.grade(recipe)
            st.badge(recipe.grade, color=color, help=f"{meaning} {escape_markdown(recipe.evidence)}")
        st.code(recipe.formula, language=None, wrap_lines=True)
        st.caption(escape_markdown(recipe.summary))
        st.caption(escape_markdown(recipe.citation))
        with st.container(horizontal=True, vertical_alignment="bottom", key=f"recipe_foot_{recipe.name}"):
            st.caption(escape_markdown(gallery.price(recipe)), width="stretch")
            st.button(
                recipe.name,
                key=f"choose_{recipe.name}",
                icon=":material/arrow_forward:",
                icon_position="right",
                on_click=choose,
                args=(recipe.name,),
                help="Start a run with this recipe",
            )


def recipe_card(recipe: Recipe) -> None:
    """All that is known of one recipe, above its form."""
    with st.container(border=True, key="new_recipe_card"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{escape_markdown(recipe.title)}** :gray[{escape_markdown(recipe.name)}]", width="stretch")
            color, meaning = gallery.grade(recipe)
            st.badge(recipe.grade, color=color, help=meaning)
        formula, about = st.columns(2)
        formula.code(recipe.formula, language=None, wrap_lines=True)
        formula.caption(escape_markdown(f"Source: {recipe.citation}"))
        about.caption(escape_markdown(recipe.summary))
        about.caption(escape_markdown(f"Evidence: {recipe.evidence}"))
        about.caption(escape_markdown(gallery.price(recipe)))
        if recipe.differs:
            about.caption(escape_markdown(f"Differs from the paper: {recipe.differs}"))
        for warning in recipe.warnings:
            st.caption(f":material/warning: {escape_markdown(warning)}")
