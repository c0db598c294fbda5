"""Tests of :mod:`cloudconnect.provider.admin.tenant_acts`."""

from __future__ import annotations

import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import NotFound, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.admin.tenant_acts import INVITATION_SECONDS_MAX, TenantActs
from cloudconnect.settings import PASSWORD_ITERATIONS_MIN, TOKEN_ITERATIONS_MIN
from cloudconnect.wire.login import is_token


class TenantActsTests(SynchronousTestCase):
    """Who may log in."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.accounts = Accounts(f"sqlite:///{directory / 'accounts.sqlite'}")
        self.addCleanup(self.accounts.close)
        self.acts = TenantActs(self.accounts)

    def test_invite_a_new_tenant(self) -> None:
        """A tenant that is not there is made, and its first machine is called default."""
        made = self.acts.invite("acme", None, settings={"quota": 5})
        self.assertEqual((True, "default"), (made.made, made.label))
        self.assertTrue(is_token(made.token))
        self.assertNotIn(made.token.reveal().decode(), repr(made))
        self.assertEqual(5, self.accounts.tenant("acme").quota)
        found = self.accounts.credential("acme")
        assert found is not None
        self.assertTrue(found.invitation)

    def test_invite_another_machine(self) -> None:
        """A tenant that is there gets another machine; nothing else of it changes."""
        self.acts.invite("acme", None)
        made = self.acts.invite("acme", None, ["write"], 60)
        self.assertEqual((False, "machine-2"), (made.made, made.label))
        self.assertTrue(time.time() < made.expires <= time.time() + 60)
        self.assertRaises(UsageError, self.acts.invite, "acme", "x", settings={"quota": 1})
        self.assertRaises(UsageError, self.acts.invite, "acme", "default")

    def test_bounds(self) -> None:
        """An invitation is good for some time, and not for ever."""
        for seconds in (0, -1, INVITATION_SECONDS_MAX + 1):
            self.assertRaises(UsageError, self.acts.invite, "acme", None, ["write"], seconds)
        for label, capabilities in (("A B", ["write"]), (None, ["fly"]), (None, [])):
            self.assertRaises(UsageError, self.acts.invite, "acme", label, capabilities)
        self.assertEqual([], self.accounts.tenants())

    def test_credentials(self) -> None:
        """A token is made, or a password or a certificate taken; tokens are cheap to check."""
        self.acts.invite("acme", None)
        label, token = self.acts.add_credential("acme", "a", None)
        assert token is not None
        verifier = self.accounts.verifier(f"acme/{label}")
        assert verifier is not None
        self.assertEqual(TOKEN_ITERATIONS_MIN, verifier.iterations)
        _, none = self.acts.add_credential("acme", "b", Password(b"a password"))
        verifier = self.accounts.verifier("acme/b")
        assert verifier is not None
        self.assertEqual((None, PASSWORD_ITERATIONS_MIN), (none, verifier.iterations))
        self.acts.revoke_credential("acme", "a")
        self.assertIsNone(self.accounts.credential("acme/a"))
        self.assertRaises(NotFound, self.acts.revoke_credential, "nobody", "a")

    def test_switch(self) -> None:
        """Each state, and no other."""
        self.acts.invite("acme", None)
        for state, disabled in (("disabled", True), ("removed", True), ("enabled", False)):
            self.assertTrue(self.acts.switch("acme", state))
            self.assertEqual(disabled, self.accounts.tenant("acme").disabled)
        self.assertRaises(UsageError, self.acts.switch, "acme", "gone")
        self.assertRaises(NotFound, self.acts.switch, "nobody", "disabled")

    def test_days(self) -> None:
        """What is removed stays as many days as the provider says."""
        self.acts.invite("acme", None)
        TenantActs(self.accounts, 3).switch("acme", "removed")
        self.assertEqual(3 * 86400.0, self.accounts.tenant("acme").removal_left)
