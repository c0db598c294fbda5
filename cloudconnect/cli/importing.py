"""Layer 6: how modules are imported: late, and without Python's collector of cyclic garbage.

What is imported is never garbage. To look through all of it again and again while it grows takes a
fifth of a short command's time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Iterable, Iterator
from typing import Any


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is collected inside."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


async def import_in_turns(reactor: Any, modules: Iterable[str]) -> None:
    """Import modules that will be needed soon, with a turn of the reactor behind each.

    :param modules: their full names; best such that none takes long once those before it are there
    """
    from twisted.internet.task import deferLater

    for name in modules:
        with uncollected():
            importlib.import_module(name)
        await deferLater(reactor, 0)
