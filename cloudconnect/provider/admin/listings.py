"""Layer 4: what an admin can list of the accounts data base and the repositories, in pages."""

from __future__ import annotations

import time
from typing import Any

from cloudconnect.commands.paging import fit_page
from cloudconnect.errors import NotFound, UsageError
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.data_mover.acts import RepositoryActs
from cloudconnect.provider.history.session_counts import added, count_sessions, forgotten_counts
from cloudconnect.provider.service.followers import follower_rows, read_known
from cloudconnect.provider.usage import read_months, usage_rows
from cloudconnect.settings import PAGE_ROWS_MAX

#: What :meth:`Listings.page` can list.
LISTINGS = ("tenant", "credential", "point", "event", "session", "usage", "follower")
#: What reports need of a session.
_OF_SESSIONS = ("cursor", "started", "kind", "tenant", "host", "summary")


class Listings:
    """Lists; every method blocks.

    :param accounts: the accounts data base
    :param acts: what can be done to repositories
    """

    def __init__(self, accounts: Accounts, acts: RepositoryActs) -> None:
        self._accounts = accounts
        self._acts = acts

    def page(
        self, what: str, filters: dict[str, str], after: int, limit: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """One page of a listing, each row with its ``cursor``, and whether there is more.

        :param what: one of :data:`LISTINGS`
        :param limit: 1 to :data:`~cloudconnect.settings.PAGE_ROWS_MAX`
        :raises UsageError: no such listing
        """
        if what not in LISTINGS or not 0 < limit <= PAGE_ROWS_MAX:
            raise UsageError(f"listings are {', '.join(LISTINGS)}, pages of 1 to {PAGE_ROWS_MAX}")
        if what == "tenant":
            found = enumerate(self._accounts.tenants(), 1)
            rows = [{**row, "cursor": number} for number, row in found if number > after]
        elif what == "credential":
            name = self._accounts.tenant(filters.get("tenant", "")).name
            rows = self._accounts.credentials(name, after, limit + 1)
        elif what == "point":
            rows = self._points(filters, after, limit + 1)
        elif what == "usage":
            found = enumerate(self._usage(filters.get("month", "")), 1)
            rows = [{**row, "cursor": number} for number, row in found if number > after]
        elif what == "follower":
            found = enumerate(self._followers(filters.get("pin", "")), 1)
            rows = [{**row, "cursor": number} for number, row in found if number > after]
        elif what == "event":
            rows = self._accounts.events(filters, after, limit + 1)
        else:
            rows = self._accounts.sessions(filters.get("tenant", ""), after, limit + 1)
        return fit_page(rows, limit)

    def _followers(self, pin: str) -> list[dict[str, Any]]:
        accounts = self._accounts
        known, tenants = read_known(accounts), accounts.tenants()
        return follower_rows(known, tenants, self._sessions(), [pin], time.time())

    def _usage(self, month: str) -> list[dict[str, Any]]:
        months = read_months(self._accounts, month)  # which checks what it is
        kept = count_sessions(self._sessions()).get(month, {})
        return usage_rows(months, added(kept, forgotten_counts(self._accounts, month)), month)

    def _sessions(self) -> list[dict[str, Any]]:
        sessions: list[dict[str, Any]] = []
        while True:
            after = sessions[-1]["cursor"] if sessions else 0
            page = self._accounts.sessions("", after, PAGE_ROWS_MAX)
            sessions += [{k: row[k] for k in _OF_SESSIONS} for row in page]
            if len(page) < PAGE_ROWS_MAX:
                return sessions

    def _points(self, filters: dict[str, str], after: int, limit: int) -> list[dict[str, Any]]:
        """One tenant's points; a listing over tenants asks for each in turn."""
        name = filters.get("tenant", "")
        if not name:
            raise UsageError("name the tenant whose points to list")
        tenant = self._accounts.tenant(name)
        if tenant.repository is None:
            raise NotFound(f"tenant {name} has no repository yet")
        query = {name: filters.get(name, "") for name in ("host", "job", "tag")}
        states = [filters["state"]] if filters.get("state") else None
        rows, _ = self._acts.points(
            tenant.repository, {**query, "after": after, "limit": limit, "states": states}
        )
        return [{"tenant": name, **row, "cursor": row["arrival"]} for row in rows]
