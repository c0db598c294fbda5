"""Tests of :mod:`cloudconnect.cli.credentials`: on a directory, while no provider runs."""

from __future__ import annotations

from pathlib import Path

from cloudconnect.config.client_certificates import certificate_pin, make_client_certificate
from tests.certificates import EXPIRED, build
from tests.cli.test_tenants import TenantCase


class CredentialTests(TenantCase):
    """Credentials."""

    def test_life(self) -> None:
        """One is added, listed and revoked."""
        done = self.tenant("credential", "add", "acme", "--label", "laptop", "--can", "write,read")
        self.assertIn("acme/laptop", done.out)
        self.assertIn("cct1-", done.out)
        listed = self.tenant("credential", "list", "acme").out
        self.assertIn("acme/laptop  can write, read  password", listed)
        self.assertEqual(0, self.tenant("credential", "revoke", "acme", "laptop").status)
        self.assertNotIn("laptop", self.tenant("credential", "list", "acme").out)
        self.assertIn("ended", self.tenant("credential", "list", "acme", "--all").out)
        self.assertEqual(10, self.tenant("credential", "revoke", "acme", "laptop").status)
        self.assertEqual(10, self.tenant("credential", "list", "nobody").status)

    def test_certificate(self) -> None:
        """One with a certificate: its pin is listed, the next one may have the same label, and
        each is revoked alone."""
        first, following = (Path(self.mktemp()).absolute() for _ in range(2))
        for path in (first, following):
            make_client_certificate("laptop", path, path.with_suffix(".key"))
        pins = [f"SPKI-SHA256:{certificate_pin(path).hex()}" for path in (first, following)]
        add = ("credential", "add", "acme", "--label", "laptop", "--certificate")
        (line,) = self.tenant(*add, str(first), "--json").lines()
        self.assertEqual(("acme/laptop", pins[0]), (line["login"], line["spki"]))
        self.assertNotIn("token", line)
        self.assertEqual(2, self.tenant(*add, str(first)).status)
        self.assertEqual(0, self.tenant(*add, str(following)).status)
        listed = self.tenant("credential", "list", "acme").out
        for pin in pins:
            self.assertIn(pin, listed)
        revoke = ("credential", "revoke", "acme", "laptop")
        self.assertEqual(0, self.tenant(*revoke, "--certificate", str(first)).status)
        self.assertEqual(10, self.tenant(*revoke, "--certificate", str(first)).status)
        listed = self.tenant("credential", "list", "acme").out
        self.assertEqual((False, True), (pins[0] in listed, pins[1] in listed))
        self.assertEqual(0, self.tenant(*revoke, "--spki", pins[1]).status)

    def test_bad_certificate(self) -> None:
        """What no machine could log in with is refused; so are two proofs at once."""
        text = Path(self.mktemp()).absolute()
        text.write_text("no certificate")
        expired = Path(build("x", None, days=EXPIRED).write(self.mktemp()).certificate_path)
        for path in (text, expired.absolute(), Path("/nowhere/at/all")):
            done = self.tenant("credential", "add", "acme", "--certificate", str(path))
            self.assertEqual(2, done.status, path)
        both = ("--certificate", str(expired.absolute()), "--password-file", str(text))
        self.assertEqual(2, self.tenant("credential", "add", "acme", *both).status)
        wrong = ("credential", "revoke", "acme", "default", "--spki", "SHA256:" + "0" * 64)
        self.assertEqual(2, self.tenant(*wrong).status)
