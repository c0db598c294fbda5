"""Tests of :mod:`cloudconnect.config.invitation`."""

from __future__ import annotations

import tomllib

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.invitation import INVITATION_MAX, InvitationText, parse_invitation
from cloudconnect.errors import UsageError
from cloudconnect.wire.login import make_token

INVITATION = InvitationText(
    providers=("backup.example.net:6180", "[2001:db8::1]:6180"),
    tenant="acme",
    credential="laptop",
    fingerprints=("SPKI-SHA256:" + "ab" * 32,),
    token=make_token(),
    expires=1_900_000_000,
)


class InvitationTests(SynchronousTestCase):
    """The text that a provider hands over."""

    def test_there_and_back(self) -> None:
        """What is written is read, also with the ends of lines that mail programs make."""
        for octets in (INVITATION.encode(), INVITATION.encode().replace("\n", "\r\n")):
            found = parse_invitation(octets.encode())
            self.assertEqual(INVITATION.token.reveal(), found.token.reveal())
            fields = [attrs.asdict(attrs.evolve(i, token=None)) for i in (INVITATION, found)]  # type: ignore[arg-type]
            self.assertEqual(*fields)

    def test_login(self) -> None:
        """The log-in name names the machine, except for the first one."""
        self.assertEqual("acme/laptop", INVITATION.login)
        self.assertEqual("acme", attrs.evolve(INVITATION, credential="default").login)

    def test_for_people(self) -> None:
        """It says what it is for, until when, and that it is a secret; its repr does not tell."""
        text = INVITATION.encode()
        for words in ("tenant acme", "2030-03-17", "secret", "connect --invite"):
            self.assertIn(words, text)
        self.assertNotIn(INVITATION.token.reveal().decode(), repr(INVITATION))

    def test_unusable(self) -> None:
        """What was changed, is cut or is something else is refused without repeating the token."""
        good = INVITATION.encode()
        secret = INVITATION.token.reveal().decode()
        for old, new in (
            ("invitation-1", "invitation-2"),
            ('tenant = "acme"', 'tenant = "../acme"'),
            ('tenant = "acme"', "tenant = 5"),
            ('credential = "laptop"', 'credential = ""'),
            (secret, secret[:-2]),
            (secret, secret[:9] + "1" + secret[10:]),
            ("SPKI-SHA256:ab", "SPKI-SHA256:a"),
            ("providers = [", "providers = []\nothers = ["),
            ("backup.example.net:6180", "backup.example.net:port"),
            ("expires = 1900000000", "expires = true"),
            ("expires = 1900000000", ""),
            ("token", "tokem"),
        ):
            self.assertIn(old, good)
            error = self.assertRaises(
                UsageError, parse_invitation, good.replace(old, new, 1).encode()
            )
            self.assertNotIn(secret[5:40], str(error))
        for octets in (b"", b"\xff\xfe", good.encode()[:200], b"a = 1\n" * INVITATION_MAX):
            self.assertRaises(UsageError, parse_invitation, octets)

    def test_nothing_is_executed(self) -> None:
        """A name with a quotation mark in it stays a text."""
        odd = attrs.evolve(INVITATION, providers=('a"]\nformat = "x',))
        self.assertRaises(UsageError, odd.encode)
        self.assertEqual("acme", tomllib.loads(INVITATION.encode())["tenant"])
