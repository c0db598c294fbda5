"""Back up to a service provider, as a Twisted protocol stack.

The layers, from words to faces, and what each may import, stand in ``docs/architecture.rst``.
``__version__`` is the release that is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """``__version__``, which costs something to find out, and is seldom asked for."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("cloudconnect")
