"""Layer 6: whether a command's session goes through WAN accelerators, and the tenant's own one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import click
from twisted.internet.defer import maybeDeferred

from cloudconnect.cli.console import size
from cloudconnect.cli.line import Line
from cloudconnect.config.profile import cache_folder, state_folder
from cloudconnect.content.subkeys import EncryptionMode
from cloudconnect.errors import UsageError

if TYPE_CHECKING:
    from cloudconnect.content.description import RepositoryDescription

#: What only a line that is connected needs, where its session may be accelerated.
_LATER: Final = (
    "cloudconnect.cache.blocks",
    "cloudconnect.dedup.exchange",
    "cloudconnect.accelerator.source",
    "cloudconnect.tap.accelerators",
)

#: Connections between the accelerators: several fill a line with loss that one does not.
STREAMS: Final = 4
#: A line with a shorter way there and back is a LAN, where compressing costs more than sending.
SHORT_SECONDS: Final = 0.005
#: GiB of block cache on the tenant's machine, where CLOUDCONNECT_WAN_CACHE_GB does not say.
CACHE_GB: Final = 4

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


@attrs.define
class WAN:
    """WAN acceleration of one command.

    :ivar used: whether its session goes through accelerators
    :ivar why: why not, or what limits it
    :ivar plain: whether chunks travel to the accelerators uncompressed
    """

    used: bool
    why: str
    plain: bool = False

    def summary(self, saved: dict[str, Any]) -> dict[str, Any]:
        """What the command's summary says of it.

        :param saved: the accelerator's counts, empty where there are none
        """
        return {"used": self.used, "encryption": self.why, **saved}

    def text(self, saved: dict[str, Any]) -> str:
        """A line for a person; empty where there is nothing to say."""
        if not saved:
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
        text = f"WAN acceleration: {size(before)} as {size(after)}"
        if ways:
            text += f"; saved {', '.join(ways)}"
        return text if self.plain else f"{text} ({self.why})"


def modules(choice: str) -> tuple[str, ...]:
    """What a command's work imports when it begins, for the line to have it there by then.

    :param choice: ``auto``, ``on`` or ``off``
    """
    return () if choice == "off" else _LATER


@asynccontextmanager
async def accelerated(
    line: Line, description: RepositoryDescription, choice: str
) -> AsyncIterator[WAN]:
    """Decide, and have the tenant's own accelerator ready while the command's work is done.

    :param choice: ``auto``, ``on`` or ``off``
    :raises UsageError: ``on``, and the provider does not offer it; or this machine's node key
        cannot be used
    """
    decided = decide(line, description.mode, choice)
    if not decided.used:
        yield decided
        return
    from cloudconnect.accelerator.source import SourceAccelerator
    from cloudconnect.commands.links import link_in_process
    from cloudconnect.tap.accelerators import caches_in
    from cloudconnect.tenant.accelerated import OwnAccelerator
    from cloudconnect.transports.memory import MemoryEndpoint

    reactor, manager, account = line.reactor, line.manager, line.account
    ids = account.provider, description.repository
    key = state_folder(os.environ, *ids) / "wan.key"
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    limit = _cache_size()
    caches = caches_in(reactor, cache_folder(os.environ, *ids) / "wan", key, limit, limit)
    accelerator = SourceAccelerator(reactor, caches, manager.far_endpoint)
    near, accelerator.link = link_in_process(reactor, manager.reports, accelerator)
    endpoint = MemoryEndpoint(reactor, "the source WAN accelerator")
    endpoint.listen(accelerator.factory)
    accelerator.startService()
    manager.use_accelerator(OwnAccelerator(near, endpoint, b"".join(ids), STREAMS))
    try:
        yield decided
    finally:
        await maybeDeferred(accelerator.stopService)
        for link in (near, accelerator.link):
            if link.transport is not None:
                link.transport.loseConnection()


def decide(line: Line, mode: EncryptionMode, choice: str) -> WAN:
    """Whether the command's session goes through accelerators.

    :raises UsageError: ``on``, and the provider does not offer it
    """
    plain = mode is not EncryptionMode.TENANT
    if choice == "on":
        if not line.account.wan:
            raise UsageError("the provider offers no WAN acceleration: use --wan auto or off")
        return WAN(True, _EFFECTS[mode], plain)
    if choice == "off":
        return WAN(False, "not wanted")
    if not line.account.wan:
        return WAN(False, "the provider offers none")
    if not plain:
        return WAN(False, _EFFECTS[mode])
    way = line.manager.round_trip
    if way is not None and way < SHORT_SECONDS:
        return WAN(False, "the line is a short one")
    return WAN(True, _EFFECTS[mode], plain)


def _cache_size() -> int:
    """Bytes that the own cache may take.

    :raises UsageError: the environment says something else
    """
    from cloudconnect.tap.accelerators import GIB

    text = os.environ.get("CLOUDCONNECT_WAN_CACHE_GB", str(CACHE_GB))
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 10_000:
        raise UsageError(f"CLOUDCONNECT_WAN_CACHE_GB is {text!r}, not a number from 1 to 10000")
    return int(text) * GIB
