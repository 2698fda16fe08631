"""Published methods, each a small YAML file with its citation: named points in the space of ``MethodSpec``."""

from opd_core.recipes.brief import brief
from opd_core.recipes.library import Recipe, adapt, load, names, resolve, revise

__all__ = ["Recipe", "adapt", "brief", "load", "names", "resolve", "revise"]
