"""Tests of :mod:`cloudconnect.provider.service.access`: every act, with every reason against it."""

from __future__ import annotations

import datetime

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.control import SessionKind
from cloudconnect.errors import CloudConnectError, LeaseEnded, NotAllowed
from cloudconnect.provider.accounts import Tenant
from cloudconnect.provider.accounts.credentials import CAPABILITIES, Credential
from cloudconnect.provider.service.access import (
    NEEDS,
    NEEDS_LEASE,
    SESSIONS,
    Act,
    Login,
    check_access,
)
from cloudconnect.wire.login import Verifier

VERIFIER = Verifier(b"s" * 16, bytes(32), bytes(32), 4096)
TODAY = datetime.date(2030, 6, 15)
ACME = Tenant(
    name="acme",
    group=b"g" * 16,
    disabled=False,
    lease_end=None,
    quota=None,
    max_tasks=4,
    modes=("tenant",),
    repository=None,
)


def login(*capabilities: str) -> Login:
    return Login("acme", 1, "laptop", frozenset(capabilities or CAPABILITIES))


def refusal(act: Act, tenant: Tenant = ACME, by: Login | None = None) -> type | None:
    """The class of what an act is refused with."""
    try:
        check_access(tenant, by or login(), act, TODAY)
    except CloudConnectError as error:
        return type(error)
    return None


def ended(days: int) -> Tenant:
    """The tenant, whose lease ended so many days ago."""
    return attrs.evolve(ACME, lease_end=(TODAY - datetime.timedelta(days)).isoformat())


class AccessTests(SynchronousTestCase):
    """Who may do what."""

    def test_whole(self) -> None:
        """Every act and every kind of session has a place in the tables."""
        self.assertEqual(set(Act), set(NEEDS))
        self.assertEqual(set(SessionKind), set(SESSIONS))

    def test_everything(self) -> None:
        """An enabled tenant with a lease and a credential that can everything may do everything."""
        for tenant in (ACME, ended(0), ended(-1)):
            for act in Act:
                self.assertIsNone(refusal(act, tenant), act)

    def test_disabled(self) -> None:
        """A disabled one nothing, nor log in."""
        for act in Act:
            self.assertIs(LeaseEnded, refusal(act, attrs.evolve(ACME, disabled=True)), act)

    def test_grace(self) -> None:
        """After the lease what gives back what is stored, for a time; then nothing."""
        for act in Act:
            for days in (1, 30):
                expected = LeaseEnded if act in NEEDS_LEASE else None
                self.assertIs(expected, refusal(act, ended(days)), (act, days))
            self.assertIs(LeaseEnded, refusal(act, ended(31)), act)
        allowed = {act for act in Act if refusal(act, ended(1)) is None}
        self.assertLessEqual({Act.LOG_IN, Act.LIST, Act.RESTORE, Act.CHANGE_KEYS}, allowed)
        self.assertFalse(allowed & {Act.BACKUP, Act.DELETE, Act.CREATE})

    def test_capabilities(self) -> None:
        """Each capability allows its own acts, and no others."""
        allowed = {
            name: {act for act in Act if refusal(act, by=login(name)) is None}
            for name in CAPABILITIES
        }
        both = {Act.LOG_IN, Act.READ}
        self.assertEqual(both | {Act.BACKUP}, allowed["write"])
        self.assertEqual(
            both | {Act.LIST, Act.RESTORE, Act.CHECK, Act.SHOW_RETENTION}, allowed["read"]
        )
        self.assertEqual(
            both | {Act.DELETE, Act.UNDELETE, Act.LOCK, Act.SET_RETENTION}, allowed["delete"]
        )
        self.assertEqual(both | {Act.CREATE, Act.CHANGE_KEYS}, allowed["admin"])

    def test_text(self) -> None:
        """A refusal names the credential, what was asked, and what it takes."""
        with self.assertRaises(NotAllowed) as caught:
            check_access(ACME, login("write"), Act.RESTORE, TODAY)
        for word in ("laptop", "acme", "restore", "read"):
            self.assertIn(word, str(caught.exception))

    def test_invitation(self) -> None:
        """An invitation can log in, and nothing else, whatever its machine will be able to do."""
        invited = Credential(
            number=1,
            tenant="acme",
            label="laptop",
            capabilities=frozenset(CAPABILITIES),
            verifier=VERIFIER,
            invitation=True,
        )
        for act in Act:
            expected = None if act is Act.LOG_IN else NotAllowed
            self.assertIs(expected, refusal(act, by=Login.by(invited)), act)
