"""Layer 6: whether a command's session goes through WAN accelerators, and the tenant's own one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import click
from twisted.internet.defer import maybeDeferred

from cloudconnect.cli import beside
from cloudconnect.cli.console import size
from cloudconnect.cli.line import Line
from cloudconnect.cli.tenant import TenantSettings
from cloudconnect.cli.wan_shared import shared_accelerator
from cloudconnect.commands.links import link_in_process
from cloudconnect.content.atrest import EncryptionMode, RepositoryDescription
from cloudconnect.errors import UsageError
from cloudconnect.settings import LONG_LINE_SECONDS
from cloudconnect.tenant.accelerated import OwnAccelerator, Wanted
from cloudconnect.transports.memory import MemoryEndpoint

#: Connections between the accelerators: several fill a line with loss that one does not.
STREAMS: Final = 4

_EFFECTS: Final = {
    EncryptionMode.TENANT: "encryption mode tenant: accelerators see sealed chunks, of which only "
    "whole repetitions can be saved",
    EncryptionMode.PROVIDER: "encryption mode provider: accelerators see content",
    EncryptionMode.NONE: "encryption mode none: accelerators see content",
}

option = click.option(
    "--wan",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="WAN acceleration; auto: where it can help.",
)


@attrs.define(repr=False)
class WAN(Wanted):
    """WAN acceleration of one command.

    :ivar why: why it is not used, or what limits it
    :ivar plain: whether accelerators see content, not sealed chunks
    """

    why: str = ""
    plain: bool = False

    @property
    def compression(self) -> tuple[int, ...]:
        """The compression level of the source mover, where it is another one: accelerators compress
        better, and the provider's mover for its store."""
        return (0,) if self.used and self.plain else ()

    def go_without(self) -> bool:
        """As :class:`Wanted` has it."""
        went = super().go_without()
        if went:
            self.why = "there was no accelerator (any more)"
        return went

    def summary(self, saved: dict[str, Any]) -> dict[str, Any]:
        """What the command's summary says of it.

        :param saved: the accelerator's counts, empty where there are none
        """
        return {"used": self.used, "why": self.why, **saved}

    def text(self, saved: dict[str, Any]) -> str:
        """A line for a person, after a line feed; empty where there is nothing to say.

        That is also where only the bytes on the line are known: the accelerator was lost.
        """
        if "bytes_before" not in saved:
            return ""
        before, after = saved["bytes_before"], saved["bytes_after"]
        ways = [
            f"{size(saved[name])} by {word}"
            for name, word in (
                ("saved_by_reference", "reference"),
                ("saved_by_delta", "delta"),
                ("saved_by_compression", "compression"),
            )
            if saved[name] > 0
        ]
        text = f"\nWAN acceleration: {size(before)} as {size(after)}"
        if ways:
            text += f"; saved {', '.join(ways)}"
        return text if self.plain else f"{text} ({self.why})"


def wanted_beside(mode: EncryptionMode, choice: str) -> Sequence[str]:
    """Modules that :func:`accelerated` will want, if the provider offers accelerators and the line
    is a long one.

    :param choice: ``auto``, ``on`` or ``off``
    """
    may = choice == "on" or (choice == "auto" and mode is not EncryptionMode.TENANT)
    return beside.ACCELERATOR if may else ()


@asynccontextmanager
async def accelerated(
    line: Line, description: RepositoryDescription, choice: str
) -> AsyncIterator[WAN]:
    """Decide, and have the tenant's own accelerator ready while the command's work is done.

    :param choice: ``auto``, ``on`` or ``off``
    :raises UsageError: ``on``, and the provider does not offer it; or this machine's node key, or
        its certificate for a shared accelerator, cannot be used
    """
    decided = decide(line, description.mode, choice)
    if not decided.used:
        yield decided
        return
    # Here, as most commands go without, and would wait for this a fifth of their start.
    from cloudconnect.accelerator.source import SourceAccelerator
    from cloudconnect.cli.own_cache import OwnCache
    from cloudconnect.tap.accelerators import caches_in

    reactor, manager, account = line.reactor, line.manager, line.account
    own = OwnCache.of(account.provider, description.repository)
    shared = shared_accelerator(line, own.name, STREAMS)
    if shared is not None:
        manager.use_accelerator(shared)
        try:
            yield decided
        finally:
            manager.use_accelerator(None)
            shared.close()
        return
    own.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    caches = caches_in(reactor, own.folder.parent, own.key, own.limit, own.limit)
    accelerator = SourceAccelerator(reactor, caches, manager.far_endpoint)
    near, accelerator.link = link_in_process(reactor, manager.reports, accelerator)
    endpoint = MemoryEndpoint(reactor, "the source WAN accelerator")
    endpoint.listen(accelerator.factory)
    accelerator.startService()
    manager.use_accelerator(OwnAccelerator(near, endpoint, own.name, STREAMS))
    try:
        yield decided
    finally:
        manager.use_accelerator(None)
        await maybeDeferred(accelerator.stopService)
        for link in (near, accelerator.link):
            if link.transport is not None:
                link.transport.loseConnection()


def decide(line: Line, mode: EncryptionMode, choice: str) -> WAN:
    """Whether the command's session goes through accelerators.

    :raises UsageError: ``on``, and the provider does not offer it
    """
    return _decided(line.account.wan, mode, choice, line.manager.round_trip)


def foreseen_streams(settings: TenantSettings, choice: str, round_trip: float | None) -> int | None:
    """Connections between the accelerators that the command's session will probably have, before
    it is known whether the provider offers any; 0: it goes without.

    :param round_trip: of the line, in seconds, where that is known
    :return: None where that cannot be said: a shared accelerator may not be there
    """
    if not _decided(True, settings.mode, choice, round_trip).used:
        return 0
    return None if settings.profile.wan_accelerator else STREAMS


def _decided(offered: bool, mode: EncryptionMode, choice: str, way: float | None) -> WAN:
    plain = mode is not EncryptionMode.TENANT
    if choice == "on":
        if not offered:
            raise UsageError("the provider offers no WAN acceleration: use --wan auto or off")
        return WAN(used=True, optional=False, why=_EFFECTS[mode], plain=plain)
    if choice == "off":
        return WAN(why="not wanted")
    if not offered:
        return WAN(why="the provider offers none")
    if not plain:
        return WAN(why=_EFFECTS[mode])
    if way is not None and way < LONG_LINE_SECONDS:  # compressing costs more than sending
        return WAN(why="the line is a short one")
    return WAN(used=True, why=_EFFECTS[mode], plain=plain)
