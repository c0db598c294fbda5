"""How Sphinx builds the documentation: ``make docs``, without a network and without a warning."""

import builtins
from importlib.metadata import version as installed_version

project = "cloudconnect"
author = "the cloudconnect authors"
project_copyright = "2026, the cloudconnect authors"
version = release = installed_version("cloudconnect")

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = None
html_theme = "alabaster"
html_theme_options = {"fixed_sidebar": True, "page_width": "1080px"}

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# The signatures keep their annotations as text; who wants to follow a type reads the source.
autodoc_typehints = "none"

# References are checked (-n); what is described elsewhere is not, as nothing is fetched here.
nitpick_ignore_regex = [
    (r"py:.*", r"(twisted|zope|OpenSSL|cryptography|attrs?|cbor2|scramp|sqlalchemy|enum)(\..*)?"),
    (r"py:(exc|class|obj)", "|".join(name for name in vars(builtins) if name[0] != "_")),
]
