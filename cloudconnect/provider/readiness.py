"""Layer 4: whether a provider can serve: what ``/readyz`` asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.errors import CloudConnectError
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.data_mover.reserve import Reserve
from cloudconnect.provider.service.service import CloudConnectService


def readiness(
    service: CloudConnectService,
    accounts: Accounts,
    in_accounts_thread: Callable[..., Deferred[Any]],
    reserve: Reserve | None = None,
) -> Callable[[], Deferred[Mapping[str, str]]]:
    """Looks at what a backup needs: the accounts data base, a mover, room on the disk.

    :return: called for each look; fires with what is wrong by name, "" where nothing is
    """

    async def look() -> Mapping[str, str]:
        found = {"service": "" if service.running else "stopping", "mover": "", "accounts": ""}
        try:
            service.nodes.mover  # noqa: B018
        except CloudConnectError as error:
            found["mover"] = str(error)
        try:
            await in_accounts_thread(accounts.value, "provider-id")
        except Exception as error:
            found["accounts"] = f"the data base does not answer ({type(error).__name__})"
        full = reserve is not None and reserve.given
        return {**found, "disk": "full: restores only" if full else ""}

    return lambda: Deferred.fromCoroutine(look())
