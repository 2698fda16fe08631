"""Published methods, each a small YAML file with its citation: named points in the space of ``MethodSpec``."""

from opd_core.recipes.brief import brief
from opd_core.recipes.library import Recipe, load, names, resolve

__all__ = ["Recipe", "brief", "load", "names", "resolve"]
