"""Tests of :mod:`cloudconnect.provider.admin.administration`: the acts by themselves."""

from __future__ import annotations

from cloudconnect.errors import NotFound, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.accounts import MAX_TASKS_DEFAULT
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository
from cloudconnect.settings import PASSWORD_ITERATIONS_MIN, TOKEN_ITERATIONS_MIN
from cloudconnect.wire.login import is_token
from cloudconnect.wire.scram import ScramServer
from cloudconnect.wire.scram_client import ScramClient
from tests.provider.stage import TENANT, StageCase


class ActTests(StageCase):
    """What an admin may do."""

    def setUp(self) -> None:
        super().setUp()
        self.acts = self.provider.administration

    def logs_in(self, name: str, password: Password) -> bool:
        """Whether this password is the tenant's."""
        client = ScramClient(name, password, bytes(32))
        server = ScramServer(self.provider.accounts.verifier, bytes(32), bytes(32))
        try:
            client.verify(server.final(client.final(server.first(client.first()))))
        except Exception:
            return False
        return True

    def test_token(self) -> None:
        """Without a password a token is made, which logs in; it is told once and not stored."""
        token = self.acts.add_tenant(TENANT, None, {})
        assert token is not None
        self.assertTrue(is_token(token))
        verifier = self.provider.accounts.verifier(TENANT)
        self.assertEqual(TOKEN_ITERATIONS_MIN, verifier and verifier.iterations)
        octets = token.reveal()
        self.assertTrue(self.logs_in(TENANT, token))
        for path in self.directory.iterdir():
            if path.is_file():
                self.assertNotIn(octets, path.read_bytes(), path)
        self.assert_unsaid(octets)

    def test_password(self) -> None:
        """A person's password costs as many iterations as clients ask for, and no token is made."""
        self.assertIsNone(self.acts.add_tenant(TENANT, Password(b"correct horse"), {}))
        verifier = self.provider.accounts.verifier(TENANT)
        self.assertEqual(PASSWORD_ITERATIONS_MIN, verifier and verifier.iterations)
        self.assertTrue(self.logs_in(TENANT, Password(b"correct horse")))

    def test_given_token(self) -> None:
        """A token that the admin brings is treated as one."""
        token = self.acts.add_tenant("first", None, {})
        assert token is not None
        self.assertIsNone(self.acts.add_tenant("second", token, {}))
        verifier = self.provider.accounts.verifier("second")
        self.assertEqual(TOKEN_ITERATIONS_MIN, verifier and verifier.iterations)

    def test_settings(self) -> None:
        """Settings are kept; what was left out, or is None, is as usual."""
        self.acts.add_tenant("a", None, {"quota": 5, "max_tasks": 2, "modes": ["tenant", "none"]})
        self.acts.add_tenant("b", None, {"quota": None, "max_tasks": None, "modes": None})
        a, b = (self.provider.accounts.tenant(name) for name in "ab")
        self.assertEqual((5, 2, ("tenant", "none")), (a.quota, a.max_tasks, a.modes))
        self.assertEqual((None, MAX_TASKS_DEFAULT, ("tenant",)), (b.quota, b.max_tasks, b.modes))

    def test_refused(self) -> None:
        """Unknown settings, modes and empty passwords are refused, and no tenant is made."""
        for settings in ({"quoat": 5}, {"modes": ["open"]}, {"modes": "tenant"}):
            self.assertRaises(UsageError, self.acts.add_tenant, TENANT, None, settings)
        self.assertRaises(UsageError, self.acts.add_tenant, TENANT, Password(b""), {})
        self.assertEqual([], self.provider.accounts.tenants())

    def test_set_tenant(self) -> None:
        """What is named changes, the rest stays; a limit can be taken away."""
        self.provider.add_tenant(quota=5, lease_end="2030-01-31", modes=["tenant", "none"])
        changes = {"quota": None, "max_tasks": 2, "rules": {"bin_days": 3}}
        self.assertIsNone(self.acts.set_tenant(TENANT, None, False, changes))
        self.acts.set_tenant(TENANT, None, False, {"rules": {"lock_days": 1}})
        tenant = self.provider.accounts.tenant(TENANT)
        self.assertEqual(
            (None, "2030-01-31", 2, ("tenant", "none")),
            (tenant.quota, tenant.lease_end, tenant.max_tasks, tenant.modes),
        )
        rules = Rules.from_map(tenant.rules)
        self.assertEqual((3, 1), (rules.bin_days, rules.lock_days))

    def test_set_password(self) -> None:
        """Another password or token logs in from then on, and the old one does not."""
        old = self.provider.add_tenant()
        token = self.acts.set_tenant(TENANT, None, True, {})
        assert token is not None
        self.assertTrue(self.logs_in(TENANT, token))
        self.assertFalse(self.logs_in(TENANT, old))
        self.assertIsNone(self.acts.set_tenant(TENANT, Password(b"a password"), False, {}))
        self.assertTrue(self.logs_in(TENANT, Password(b"a password")))
        self.assertFalse(self.logs_in(TENANT, token))
        self.assert_unsaid(token.reveal())

    def test_set_wrongly(self) -> None:
        """What cannot be changes nothing, neither the password."""
        old = self.provider.add_tenant()
        for settings in (
            {"quota": -1},
            {"lease_end": "soon"},
            {"max_tasks": 0},
            {"modes": []},
            {"modes": ["rot13"]},
            {"colour": 1},
            {"rules": {"bin_days": -1}},
            {"rules": {"colour": 1}},
            {"rules": {"floor": {"keep_last": 3}, "ceiling": {"keep_last": 2}}},
        ):
            self.assertRaises(UsageError, self.acts.set_tenant, TENANT, None, True, settings)
        self.assertRaises(NotFound, self.acts.set_tenant, "nobody", None, True, {})
        self.assertTrue(self.logs_in(TENANT, old))
        self.assertEqual({}, self.provider.accounts.tenant(TENANT).rules)

    def test_bin_as_large_as_the_quota(self) -> None:
        """Where no size of the bin is set, it holds as much as the quota, in the repository too."""
        tenant = self.connected()
        for changes, size in (
            ({"quota": 10**9}, 10**9),
            ({"rules": {"bin_bytes": 5}}, 5),
            ({"rules": {"bin_bytes": None}}, 10**9),
            ({"quota": None}, None),
        ):
            self.acts.set_tenant(TENANT, None, False, changes)
            self.acts.tell_rules(TENANT)
            self.assertEqual(self.acts.describe(TENANT)["rules"]["bin_bytes"], size)
            with Repository.open(self.provider.repositories / tenant.repository.hex()) as opened:
                self.assertEqual(opened.rules.bin_bytes, size)

    def test_rules_reach_the_repository(self) -> None:
        """Where no provider runs, rules and freeze are put into the repository at once."""
        tenant = self.connected()
        self.acts.set_tenant(TENANT, None, False, {"rules": {"bin_days": 3}})
        self.assertTrue(self.acts.freeze(TENANT, True))
        with Repository.open(self.provider.repositories / tenant.repository.hex()) as opened:
            self.assertEqual((3, True), (opened.rules.bin_days, opened.frozen))
        self.assertTrue(self.acts.describe(TENANT)["frozen"])
        self.provider.add_tenant("new")
        self.assertTrue(self.acts.freeze("new", True))

    def test_findings(self) -> None:
        """What a scrub found is kept among the warnings of the tenant."""
        self.provider.add_tenant()
        self.acts.keep_findings(TENANT, {"found": 1, "findings": ["pack 1 is damaged"]})
        (row,) = self.provider.events(type="warning", tenant=TENANT)
        self.assertEqual(("stored_data_damaged", "pack 1 is damaged"), (row["name"], row["text"]))
