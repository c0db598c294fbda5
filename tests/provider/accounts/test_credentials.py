"""Tests of :mod:`cloudconnect.provider.accounts.credentials`."""

from __future__ import annotations

import time

import sqlalchemy as sa

from cloudconnect.errors import LoginRefused, NotFound, UsageError
from cloudconnect.provider.accounts import credentials
from cloudconnect.provider.accounts.credentials import CAPABILITIES
from cloudconnect.provider.accounts.tables import credentials_table
from cloudconnect.wire.login import Verifier
from tests.provider.accounts.case import VERIFIER, AccountsCase

OTHER = Verifier(b"t" * 16, b"T" * 32, b"U" * 32, 4096)


class CredentialCase(AccountsCase):
    """A data base with a tenant."""

    def setUp(self) -> None:
        super().setUp()
        self.accounts.add_tenant("acme", VERIFIER)

    def labels(self, tenant: str = "acme") -> list[str]:
        rows = self.accounts.credentials(tenant, 0, 100)
        return [row["label"] for row in rows if row["revoked"] is None]


class CredentialTests(CredentialCase):
    """One credential for each machine."""

    def test_first(self) -> None:
        """A tenant's first credential may do everything, and is meant by its name alone."""
        for login in ("acme", "acme/default"):
            found = self.accounts.credential(login)
            assert found is not None
            self.assertEqual(
                ("acme", "default", frozenset(CAPABILITIES), VERIFIER, False),
                (found.tenant, found.label, found.capabilities, found.verifier, found.invitation),
            )

    def test_another(self) -> None:
        """Each machine is proved by its own verifier, and may do what was said."""
        self.accounts.add_credential("acme", "laptop", OTHER, ("write",))
        found = self.accounts.credential("acme/laptop")
        assert found is not None
        self.assertEqual((OTHER, frozenset({"write"})), (found.verifier, found.capabilities))
        self.assertEqual(VERIFIER, self.accounts.verifier("acme"))
        self.assertNotIn(OTHER.stored_key.decode(), repr(found))

    def test_certificate(self) -> None:
        """A certificate's credential is found by name and key together, and never by a password;
        its label may have the next one beside it, and no more."""
        one, two, three = (bytes([number]) * 32 for number in range(3))
        self.accounts.add_credential("acme", "laptop", one, ("write",))
        found = self.accounts.certified("acme/laptop", one)
        assert found is not None
        self.assertEqual(
            (one, None, frozenset({"write"})),
            (found.certificate, found.verifier, found.capabilities),
        )
        self.assertIsNone(self.accounts.credential("acme/laptop"))
        self.assertIsNone(self.accounts.verifier("acme/laptop"))
        for login, pin in (("acme/laptop", two), ("acme", one), ("other/laptop", one)):
            self.assertIsNone(self.accounts.certified(login, pin), login)
        for wrong in (one, OTHER):
            with self.assertRaises(UsageError):
                self.accounts.add_credential("acme", "laptop", wrong)
        with self.assertRaises(UsageError):
            self.accounts.add_credential("acme", "default", one)
        self.accounts.add_credential("acme", "laptop", two)
        with self.assertRaises(UsageError):
            self.accounts.add_credential("acme", "laptop", three)
        self.assertEqual([found.number], self.accounts.revoke_credential("acme", "laptop", one))
        self.assertIsNone(self.accounts.certified("acme/laptop", one))
        self.assertIsNotNone(self.accounts.certified("acme/laptop", two))
        with self.assertRaises(NotFound):
            self.accounts.revoke_credential("acme", "laptop", one)
        self.assertEqual(
            [None, f"SPKI-SHA256:{one.hex()}", f"SPKI-SHA256:{two.hex()}"],
            [row["spki"] for row in self.accounts.credentials("acme", 0, 10)],
        )

    def test_no_password_proves_it(self) -> None:
        """What stands in the place of a verifier beside a certificate is new random each time."""
        for label in ("a", "b"):
            self.accounts.add_credential("acme", label, label.encode() * 32)
        with self.accounts._engine.connect() as connection:
            query = sa.select(credentials_table).where(credentials_table.c.certificate.is_not(None))
            rows = connection.execute(query).mappings().all()
        for name, size in (("salt", 16), ("stored_key", 32), ("server_key", 32)):
            values = {row[name] for row in rows}
            self.assertEqual([size] * 2, [len(value) for value in values], name)

    def test_unknown(self) -> None:
        """What is not there is not found, whatever is missing."""
        for login in ("", "acme/", "acme/other", "other", "other/default", "acme/default/x"):
            self.assertIsNone(self.accounts.credential(login))

    def test_labels(self) -> None:
        """A label that is left out is one that no machine ever had."""
        made = [self.accounts.add_credential("acme", None, OTHER) for _ in range(2)]
        self.assertEqual(["machine-2", "machine-3"], made)
        self.accounts.revoke_credential("acme", "machine-2")
        self.assertEqual("machine-4", self.accounts.add_credential("acme", None, OTHER))

    def test_refused(self) -> None:
        """A label that is taken or cannot be, odd capabilities, no such tenant."""
        for label in ("default", "", "A", "a/b", "a" * 65, "-a"):
            self.assertRaises(
                UsageError, self.accounts.add_credential, "acme", label, OTHER, CAPABILITIES
            )
        for capabilities in ((), ("write", "fly"), ("write,read",)):
            self.assertRaises(
                UsageError, self.accounts.add_credential, "acme", "a", OTHER, capabilities
            )
        self.assertRaises(NotFound, self.accounts.add_credential, "nobody", "a", OTHER)
        self.assertEqual(["default"], self.labels())

    def test_bounded(self) -> None:
        """A tenant has so many at a time."""
        self.patch(credentials, "CREDENTIALS_MAX", 2)
        self.accounts.add_credential("acme", "a", OTHER)
        self.assertRaises(UsageError, self.accounts.add_credential, "acme", "b", OTHER)

    def test_revoked(self) -> None:
        """One that was revoked is not valid; its label can be given again; the rest stays."""
        self.accounts.add_credential("acme", "laptop", OTHER)
        found = self.accounts.credential("acme/laptop")
        assert found is not None
        self.assertTrue(self.accounts.valid_credential(found.number))
        self.accounts.revoke_credential("acme", "laptop")
        self.assertFalse(self.accounts.valid_credential(found.number))
        self.assertIsNone(self.accounts.credential("acme/laptop"))
        self.assertRaises(NotFound, self.accounts.revoke_credential, "acme", "laptop")
        self.accounts.add_credential("acme", "laptop", VERIFIER)
        self.assertEqual(["default", "laptop"], self.labels())

    def test_another_password(self) -> None:
        """Another login password is one of the default credential, which can what it could."""
        self.accounts.revoke_credential("acme", "default")
        self.accounts.add_credential("acme", "default", VERIFIER, ("read",))
        self.accounts.add_credential("acme", "laptop", VERIFIER)
        self.accounts.change_verifier("acme", OTHER)
        found = self.accounts.credential("acme")
        assert found is not None
        self.assertEqual((OTHER, frozenset({"read"})), (found.verifier, found.capabilities))
        self.assertEqual(VERIFIER, self.accounts.verifier("acme/laptop"))

    def test_listing(self) -> None:
        """Pages with nothing that helps a guesser; of one tenant only."""
        self.accounts.add_tenant("other", OTHER)
        for label in ("a", "b"):
            self.accounts.add_credential("acme", label, OTHER, ("write",))
        first = self.accounts.credentials("acme", 0, 2)
        rest = self.accounts.credentials("acme", first[-1]["cursor"], 2)
        self.assertEqual(["default", "a", "b"], [row["label"] for row in first + rest])
        self.assertEqual(["write"], rest[0]["capabilities"])
        self.assertNotIn(OTHER.stored_key.decode(), repr(first + rest))


class InvitationTests(CredentialCase):
    """What is good once."""

    def invite(self, label: str = "laptop", seconds: float = 60) -> int:
        self.accounts.add_credential(
            "acme", label, OTHER, ("write",), invitation=True, expires=time.time() + seconds
        )
        found = self.accounts.credential(f"acme/{label}")
        return 0 if found is None else found.number

    def test_accepted(self) -> None:
        """The machine's own credential takes its place, with what the invitation could."""
        made = self.accounts.accept_invitation(self.invite(), VERIFIER)
        self.assertEqual(
            ("laptop", VERIFIER, frozenset({"write"}), False),
            (made.label, made.verifier, made.capabilities, made.invitation),
        )
        self.assertEqual(["default", "laptop"], self.labels())

    def test_once(self) -> None:
        """Nobody accepts it twice."""
        number = self.invite()
        self.accounts.accept_invitation(number, VERIFIER)
        self.assertRaises(LoginRefused, self.accounts.accept_invitation, number, OTHER)
        self.assertEqual(VERIFIER, self.accounts.verifier("acme/laptop"))

    def test_not_one(self) -> None:
        """A credential that is no invitation cannot be spent."""
        found = self.accounts.credential("acme")
        assert found is not None
        self.assertRaises(LoginRefused, self.accounts.accept_invitation, found.number, OTHER)
        self.assertEqual(VERIFIER, self.accounts.verifier("acme"))

    def test_over(self) -> None:
        """One that is over proves nothing, and its label is free again."""
        self.assertEqual(0, self.invite(seconds=-1))
        (row,) = self.execute("SELECT id FROM credentials WHERE invitation")
        self.assertFalse(self.accounts.valid_credential(row[0]))
        self.assertRaises(LoginRefused, self.accounts.accept_invitation, row[0], OTHER)
        self.invite()

    def test_revoked(self) -> None:
        """One that was revoked cannot be accepted."""
        number = self.invite()
        self.accounts.revoke_credential("acme", "laptop")
        self.assertRaises(LoginRefused, self.accounts.accept_invitation, number, OTHER)
