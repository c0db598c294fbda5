"""Layer 6: the acts of a provider's admin: at the running provider, or on its directory.

While the provider runs they go through its admin socket and take effect at once; where none runs
they are done on the directory itself, under its lock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError

from cloudconnect.cli.running import Interrupt, run, run_at_once
from cloudconnect.commands.admin import List, LongCommand
from cloudconnect.commands.box import BoundedAMP, BoundedCommand
from cloudconnect.config.provider import ProviderSettings, load, running
from cloudconnect.errors import Busy, NotReachable
from cloudconnect.settings import COMMAND_SECONDS, PAGE_ROWS_MAX

_T = TypeVar("_T")


class Acts(Protocol):
    """What an admin can do: the commands of :mod:`cloudconnect.commands.admin`."""

    async def call(self, command: type[BoundedCommand], **arguments: Any) -> dict[str, Any]:
        """Do one of them; its answer by field names.

        :raises CloudConnectError: it cannot be done
        """


class ActsThere:
    """The acts at a running provider, through its admin socket.

    :param link: the line to it
    """

    def __init__(self, link: BoundedAMP) -> None:
        self._link = link

    async def call(self, command: type[BoundedCommand], **arguments: Any) -> dict[str, Any]:
        """Have it done."""
        timeout = None if issubclass(command, LongCommand) else COMMAND_SECONDS
        return await self._link.call(command, timeout, **arguments)


async def rows(acts: Acts, what: str, filters: dict[str, str]) -> list[dict[str, Any]]:
    """All pages of a listing."""
    found: list[dict[str, Any]] = []
    more = True
    while more:
        after = found[-1]["cursor"] if found else 0
        page = await acts.call(List, what=what, filters=filters, after=after, limit=PAGE_ROWS_MAX)
        found.extend(page["rows"])
        more = page["more"] and bool(page["rows"])
    return found


def administrate(
    directory: Path, work: Callable[[Acts], Coroutine[Any, Any, _T]], debug: bool = False
) -> _T:
    """Do ``work`` at the running provider, or on its directory where none runs.

    :raises NotReachable: one runs, and does not answer
    """
    settings = load(directory)
    with ExitStack() as held:
        if not settings.read_only:  # else nobody has a socket, and nothing can be changed
            try:
                held.enter_context(running(settings))
            except Busy:
                return at_running(settings, lambda acts, _: work(acts), debug)
        # What a provider consists of takes longer to import than all that is needed where one runs.
        from cloudconnect.cli.resting import acts_here

        return run_at_once(work(held.enter_context(acts_here(settings))))


def at_running(
    settings: ProviderSettings,
    work: Callable[[Acts, Any], Coroutine[Any, Any, _T]],
    debug: bool = False,
) -> _T:
    """Do ``work(acts, reactor)`` at the provider that runs.

    :raises NotReachable: none runs there, or it does not answer
    """

    async def remotely(reactor: Any, interrupt: Interrupt) -> _T:
        endpoint = UNIXClientEndpoint(reactor, str(settings.admin_socket), timeout=5)
        link: BoundedAMP = await connectProtocol(endpoint, BoundedAMP(reactor))
        try:
            return await work(ActsThere(link), reactor)
        finally:
            if link.transport is not None:
                link.transport.loseConnection()

    try:
        return run(remotely, debug)
    except ConnectError as error:
        raise NotReachable(
            f"no provider runs on {settings.directory}, or it does not answer: {error}"
        ) from None


def listed(
    directory: Path, what: str, filters: dict[str, str], debug: bool
) -> list[dict[str, Any]]:
    """All rows of a listing."""
    return administrate(directory, lambda acts: rows(acts, what, filters), debug)


async def tenants_meant(acts: Acts, tenant_name: str) -> list[str]:
    """The tenant that was named, or where none was, each that has a repository."""
    if tenant_name:
        return [tenant_name]
    return [row["name"] for row in await rows(acts, "tenant", {}) if row["repository"]]
