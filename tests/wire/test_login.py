"""Names and tokens: :mod:`cloudconnect.wire.login`."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.keys import Password
from cloudconnect.wire.login import is_tenant_name, is_token, make_token


class WordTests(SynchronousTestCase):
    """Which texts are names, and which are tokens."""

    def test_tokens(self) -> None:
        """A token is cct1- and 256 random bits, and is recognised."""
        tokens = {make_token().reveal() for _ in range(20)}
        self.assertEqual(len(tokens), 20)
        for token in tokens:
            self.assertTrue(is_token(Password(token)))
            octets = base64.b32decode(token[5:].upper() + b"====")
            self.assertEqual((token[:5], len(token), len(octets)), (b"cct1-", 57, 32))

    def test_not_tokens(self) -> None:
        """Everything else counts as chosen by a human, and needs many iterations."""
        token = make_token().reveal()
        for octets in (b"", b"human", token[:-1], token + b"a", token.upper(), b"\xff" + token[1:]):
            self.assertFalse(is_token(Password(octets)))
        self.assertFalse(is_token(Password(token[:-1] + b"b")))
        self.assertFalse(is_token(Password(token + b"\n")))

    def test_names(self) -> None:
        """Tenants' names: 1 to 64 of a few characters."""
        for name in ("a", "alice", "a.b_c-9", "a" * 64):
            self.assertTrue(is_tenant_name(name))
        for name in ("", "a" * 65, "A", "a/b", "a b", "a\n", "ä"):
            self.assertFalse(is_tenant_name(name))
