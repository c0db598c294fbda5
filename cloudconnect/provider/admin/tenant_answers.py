"""Layer 4: answers an admin's commands on tenants: who may log in, and what is agreed with each."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.commands.admin import (
    AddCredential,
    AddTenant,
    Freeze,
    Invite,
    RevokeCredential,
    SetTenant,
    ShowTenant,
    SwitchTenant,
)
from cloudconnect.errors import UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.admin.answers import AdminAnswers
from cloudconnect.provider.admin.tenant_acts import ENABLED
from cloudconnect.wire.login import DEFAULT_LABEL


class TenantAnswers(AdminAnswers):
    """The acts on tenants."""

    @AddTenant.responder
    def add_tenant(
        self, name: str, password: Password | None, settings: Any
    ) -> Deferred[dict[str, Any]]:
        """Make a tenant."""
        if not isinstance(settings, dict):
            raise UsageError("settings is a map")
        done = self._run(self._administration.add_tenant, name, password, settings)
        return done.addCallback(lambda token: {"token": token})

    # --- who logs in -----------------------------------------------------------------------------

    @Invite.responder
    def invite(
        self, name: str, label: str, capabilities: Any, seconds: int, settings: Any
    ) -> Deferred[dict[str, Any]]:
        """Invite a machine of a tenant."""
        if not isinstance(settings, dict):
            raise UsageError("settings is a map")
        return Deferred.fromCoroutine(
            self._invite(name, label, _texts(capabilities), seconds, settings)
        )

    async def _invite(
        self, name: str, label: str, capabilities: list[str], seconds: int, settings: dict[str, Any]
    ) -> dict[str, Any]:
        invite = self._administration.invite
        made = await self._run(invite, name, label or None, capabilities, seconds, settings)
        text = f"tenant {name}: credential {made.label} invited"
        await self._reach.note("tenant_invited", text, name, credential=made.label)
        return {
            "token": made.token,
            "label": made.label,
            "expires": int(made.expires),
            "made": made.made,
        }

    @AddCredential.responder
    def add_credential(
        self,
        name: str,
        label: str,
        password: Password | None,
        capabilities: Any,
        certificate: bytes | None = None,
    ) -> Deferred[dict[str, Any]]:
        """Give a tenant another credential."""
        return Deferred.fromCoroutine(
            self._add_credential(name, label, password, _texts(capabilities), certificate)
        )

    async def _add_credential(
        self,
        name: str,
        label: str,
        password: Password | None,
        capabilities: list[str],
        certificate: bytes | None,
    ) -> dict[str, Any]:
        add = self._administration.tenants.add_credential
        made, token = await self._run(add, name, label or None, password, capabilities, certificate)
        kind = "password" if certificate is None else "certificate"
        text = f"tenant {name}: credential {made} added, with a {kind}"
        await self._reach.note("credential_added", text, name, credential=made, kind=kind)
        return {"label": made, "token": token}

    @RevokeCredential.responder
    def revoke_credential(
        self, name: str, label: str, certificate: bytes | None = None
    ) -> Deferred[dict[str, Any]]:
        """End a credential, and what runs with it."""
        return Deferred.fromCoroutine(self._revoke_credential(name, label, certificate))

    async def _revoke_credential(
        self, name: str, label: str, certificate: bytes | None
    ) -> dict[str, Any]:
        revoke = self._administration.tenants.revoke_credential
        numbers = await self._run(revoke, name, label, certificate)
        if certificate is None:  # all at once, also what has just got its number
            await self._reach.cut(name, label)
        for number in () if certificate is None else numbers:
            await self._reach.cut(name, label, number)
        text = f"tenant {name}: credential {label} revoked"
        await self._reach.note("credential_revoked", text, name, credential=label)
        return {}

    @SwitchTenant.responder
    def switch_tenant(self, name: str, state: str) -> Deferred[dict[str, Any]]:
        """Enable, disable or remove a tenant."""
        return Deferred.fromCoroutine(self._switch_tenant(name, state))

    async def _switch_tenant(self, name: str, state: str) -> dict[str, Any]:
        changed = await self._run(self._administration.tenants.switch, name, state)
        if state != ENABLED:
            await self._reach.cut(name)
        if changed:
            await self._reach.note(f"tenant_{state}", f"tenant {name} is {state}", name)
        return {"changed": changed}

    # --- what is agreed with a tenant ------------------------------------------------------------

    @SetTenant.responder
    def set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: Any
    ) -> Deferred[dict[str, Any]]:
        """Change what is agreed with a tenant."""
        if not isinstance(settings, dict) or not isinstance(settings.get("rules", {}), dict):
            raise UsageError("settings and rules are maps")
        return Deferred.fromCoroutine(self._set_tenant(name, password, new_token, settings))

    async def _set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: dict[str, Any]
    ) -> dict[str, Any]:
        token = await self._run(
            self._administration.set_tenant, name, password, new_token, settings
        )
        if password is not None or token is not None:
            await self._reach.cut(name, DEFAULT_LABEL)  # the old password has ended
        if "rules" in settings or "quota" in settings:  # the bin is as large as the quota
            await self._reach.rules_changed(name)
        return {"token": token}

    @ShowTenant.responder
    def show_tenant(self, name: str) -> Deferred[dict[str, Any]]:
        """What is agreed with a tenant, and what its repository holds."""
        return Deferred.fromCoroutine(self._show_tenant(name))

    async def _show_tenant(self, name: str) -> dict[str, Any]:
        fields = await self._run(self._administration.describe, name)
        if fields["repository"] is not None:
            fields |= await self._reach.measure(name)
        return {"tenant": fields}

    @Freeze.responder
    def freeze(self, name: str, frozen: bool) -> Deferred[dict[str, Any]]:
        """Freeze a tenant, or thaw it."""
        done = Deferred.fromCoroutine(self._reach.freeze(name, frozen))
        return done.addCallback(lambda kept: {"kept": kept})


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageError("capabilities is a list of words")
    return values
