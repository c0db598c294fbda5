"""Layer 4: what a provider's admin may do; every method blocks.

While the provider runs they are done in its accounts thread, asked for through its admin socket
(:mod:`cloudconnect.provider.admin.socket`); where none runs, the command line does them itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from cloudconnect.errors import NotFound
from cloudconnect.keys import Password
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.admin.agreed import agreed, changed_rules, check_settings
from cloudconnect.provider.admin.listings import Listings
from cloudconnect.provider.admin.tenant_acts import (
    REMOVED_DAYS,
    Invitation,
    TenantActs,
    verifier_of,
)
from cloudconnect.provider.data_mover.acts import RepositoryActs
from cloudconnect.provider.data_mover.maintenance import scrub_warnings
from cloudconnect.provider.data_mover.reserve import Reserve
from cloudconnect.repository.rules import Rules
from cloudconnect.wire.login import make_token


class Administration:
    """The acts of a provider's admin.

    :ivar accounts: the accounts data base
    :param repositories: the folder of the repositories
    :param removed_days: days that a removed tenant stays in the bin
    :ivar acts: what can be done to these
    :ivar tenants: what can be done about who logs in
    :ivar listings: what can be listed
    """

    def __init__(
        self,
        accounts: Accounts,
        repositories: Path,
        reserve: Reserve | None = None,
        removed_days: int = REMOVED_DAYS,
    ) -> None:
        self._accounts = self.accounts = accounts
        self.tenants = TenantActs(accounts, removed_days)
        self.acts = RepositoryActs(repositories, reserve)
        self.listings = Listings(accounts, self.acts)

    def add_tenant(
        self, name: str, password: Password | None, settings: dict[str, Any]
    ) -> Password | None:
        """Make a tenant; returns the token that was made where no password was given.

        :raises UsageError: a name, password or setting that cannot be used
        """
        wanted = agreed(settings)
        token = make_token() if password is None else None
        secret = password if password is not None else token
        assert secret is not None
        self._accounts.add_tenant(name, verifier_of(secret), **wanted)
        return token

    def invite(
        self,
        name: str,
        label: str | None,
        capabilities: list[str],
        seconds: float,
        settings: dict[str, Any],
    ) -> Invitation:
        """Invite a machine of a tenant; see :meth:`.tenant_acts.TenantActs.invite`.

        :param settings: of a new tenant, as for :meth:`add_tenant`; empty for one that is there
        """
        wanted = agreed(settings) if settings else None
        return self.tenants.invite(name, label, capabilities, seconds, wanted)

    def set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: dict[str, Any]
    ) -> Password | None:
        """Change what is agreed with a tenant; returns the token that was made, if one was.

        A repository hears of new rules with :meth:`tell_rules`, or from the service.

        :param settings: what changes; ``rules`` holds the rules that change
        :raises NotFound: there is no such tenant
        :raises UsageError: a password or setting that cannot be used
        """
        check_settings({key: value for key, value in settings.items() if key != "rules"})
        tenant = self._accounts.tenant(name)
        values = dict(settings)
        if "rules" in values:
            values["rules"] = changed_rules(tenant.rules, values["rules"])
        self._accounts.change_tenant(name, values)
        token = make_token() if new_token and password is None else None
        secret = password if password is not None else token
        if secret is not None:
            self._accounts.change_verifier(name, verifier_of(secret))
        return token

    def tell_rules(self, name: str) -> bool:
        """Put what is agreed with a tenant into force in its repository, where no provider runs.

        :return: whether it could be written down there
        """
        tenant = self._accounts.tenant(name)
        if tenant.repository is None:
            return True
        return self.acts.set_rules(tenant.repository, tenant.repository_rules, tenant.frozen)

    def freeze(self, name: str, frozen: bool) -> bool:
        """Freeze a tenant or thaw it, where no provider runs; whether it could be written down."""
        self._accounts.change_tenant(name, {"frozen": frozen})
        return self.tell_rules(name)

    def repository(self, name: str) -> bytes:
        """A tenant's repository.

        :raises NotFound: there is none
        """
        tenant = self._accounts.tenant(name)
        if tenant.repository is None:
            raise NotFound(f"tenant {name} has no repository yet")
        return tenant.repository

    def describe(self, name: str) -> dict[str, Any]:
        """What is agreed with a tenant, its rules whole, as a map."""
        tenant = self._accounts.tenant(name)
        fields = attrs.asdict(tenant)
        del fields["group"]
        return {
            **fields,
            "modes": list(tenant.modes),
            "repository": None if tenant.repository is None else tenant.repository.hex(),
            "rules": Rules.from_map(tenant.repository_rules).as_map(),
        }

    def keep_findings(self, name: str, result: dict[str, Any]) -> None:
        """Keep what a scrub found, where no provider runs."""
        for warning in scrub_warnings(name, result):
            self._accounts.keep_warning(warning, warning.role)
