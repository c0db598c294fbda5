"""Layer 3: who answers a command: the responders of several locators as those of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.protocols import amp


def find_responder(
    locators: Iterable[amp.CommandLocator], name: bytes
) -> tuple[type[amp.Command], Callable[..., Any]] | None:
    """The command of a name, and what answers it; None where nobody does.

    :param locators: asked in this order
    :param name: as it stands in the box
    """
    locator: Any
    for locator in locators:
        found = locator._commandDispatch.get(name)
        if found is not None:
            command, responder = found
            return command, partial(responder, locator)
    return None
