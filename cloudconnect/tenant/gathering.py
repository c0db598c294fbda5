"""Layer 4: several steps of a session at once."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

_T = TypeVar("_T")


async def all_of(*steps: Coroutine[Any, Any, _T]) -> list[_T]:
    """Do all of them at the same time; their results, in order.

    The first error ends those that are still waiting, and is raised.
    """
    begun = [Deferred.fromCoroutine(step) for step in steps]
    try:
        return await gatherResults(begun, consumeErrors=True)
    except FirstError as first:
        for step in begun:
            step.cancel()
        error = first.subFailure.value
        assert error is not None
        raise error from None
