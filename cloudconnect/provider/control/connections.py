"""Layer 4: the control channels that are up, so that those of one credential can be cut at once."""

from __future__ import annotations

from collections.abc import Callable

from cloudconnect.errors import Busy
from cloudconnect.provider.service.access import Login
from cloudconnect.settings import TENANT_CHANNELS_MAX


class Connections:
    """The control channels on which somebody has logged in."""

    def __init__(self) -> None:
        self._up: dict[Login, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._up)

    def add(self, login: Login, cut: Callable[[], None]) -> None:
        """A log-in has proved itself.

        :param cut: ends its connection at once, and lets nothing more be begun on it
        :raises Busy: its tenant has too many
        """
        if sum(up.tenant == login.tenant for up in self._up) >= TENANT_CHANNELS_MAX:
            raise Busy(
                f"tenant {login.tenant} has {TENANT_CHANNELS_MAX} connections already; "
                "end some, or try later"
            )
        self._up[login] = cut

    def remove(self, login: Login) -> None:
        """Its connection is gone."""
        self._up.pop(login, None)

    def cut(self, tenant: str, label: str | None = None, number: int | None = None) -> int:
        """Cut the connections of a tenant; how many there were.

        :param label: only those of the credential of this name
        :param number: and of this number
        """
        wanted = [
            login
            for login in self._up
            if login.tenant == tenant
            and label in (None, login.label)
            and number in (None, login.number)
        ]
        for login in wanted:
            self._up.pop(login)()
        return len(wanted)
