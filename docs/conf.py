"""How Sphinx builds the documentation: ``make docs``, without a network and without a warning."""

import builtins
import importlib
import re
from importlib.metadata import version as installed_version

from sphinx.util.nodes import make_refnode

project = "cloudconnect"
author = "the cloudconnect authors"
project_copyright = "2026, the cloudconnect authors"
version = release = installed_version("cloudconnect")

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"fixed_sidebar": True, "page_width": "1080px"}

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Parameters are described in the docstrings, with units; annotations would only repeat them.
autodoc_typehints = "none"


def look_up(name):
    """The module, or what is found in one by its attributes, that a dotted name stands for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            # A field without a default stands in no class, but in its docstring.
            described = re.search(rf":[ic]var {part}:", getattr(found, "__doc__", None) or "")
            found = getattr(found, part, part if described else None)
        return found
    return None


def resolve(app, env, node, contnode):
    """A reference is good when its name means something where it is used, as in Python itself.

    It becomes a link when the thing has a place in these pages, and stays text when it has none (an
    inner room, another project's class). With -n whatever means nothing is a warning.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    places = env.domains["py"].objects
    scopes = (node.get("py:module"), node.get("py:class"))
    names = [".".join(filter(None, (*scopes[:depth], target))) for depth in (2, 1, 0)]
    found = next((found for name in names if (found := look_up(name)) is not None), None)
    if found is not None:
        name = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    else:
        # A short name that only one thing in these pages has will do, too.
        candidates = [name for name in places if name.endswith(f".{target}")]
        name = candidates[0] if len(candidates) == 1 else ""
    if name in places:
        there = places[name]
        return make_refnode(
            app.builder, node["refdoc"], there.docname, there.node_id, contnode, name
        )
    return contnode if found is not None or hasattr(builtins, target) else None


def setup(app):
    """Called by Sphinx."""
    app.connect("missing-reference", resolve)
