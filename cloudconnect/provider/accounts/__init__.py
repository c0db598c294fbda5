"""Layer 4: the service's own data base: tenants, credentials, sessions, events.

Only the Cloud Connect service holds it; movers have the catalogue of each repository instead
(:mod:`cloudconnect.repository.catalogue`). All methods block: the service calls them in its
accounts thread. Each subject has a module of its own, over one data base.
"""

from __future__ import annotations

from cloudconnect.provider.accounts.credentials import CredentialAccounts
from cloudconnect.provider.accounts.events import EventAccounts
from cloudconnect.provider.accounts.history import HistoryAccounts
from cloudconnect.provider.accounts.nodes import NodeAccounts
from cloudconnect.provider.accounts.removals import RemovalAccounts
from cloudconnect.provider.accounts.sessions import SessionAccounts
from cloudconnect.provider.accounts.shrinking import ShrinkingAccounts
from cloudconnect.provider.accounts.tables import MAX_TASKS_DEFAULT, metadata
from cloudconnect.provider.accounts.tenants import TENANT_NAME, Tenant
from cloudconnect.provider.accounts.untold import UntoldAccounts

__all__ = ["MAX_TASKS_DEFAULT", "TENANT_NAME", "Accounts", "Tenant", "metadata"]


class Accounts(
    RemovalAccounts,
    CredentialAccounts,
    SessionAccounts,
    EventAccounts,
    UntoldAccounts,
    HistoryAccounts,
    NodeAccounts,
    ShrinkingAccounts,
):
    """The accounts data base, with all its parts."""
