"""Tests of :mod:`cloudconnect.cli.certificate`, where no provider runs."""

from __future__ import annotations

from cryptography import x509

from cloudconnect.config.provider import load
from cloudconnect.config.renewal import next_pin
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.service.followers import keep_known
from tests.certificates import self_signed
from tests.cli.test_provider import VERIFIER, DirectoryCase


class CertificateTests(DirectoryCase):
    """What an admin does with the certificate."""

    def tenant(self) -> Accounts:
        accounts = self.accounts()
        accounts.add_tenant("acme", VERIFIER)
        accounts.set_repository("acme", b"r" * 16)
        return accounts

    def test_show(self) -> None:
        """The pin first, whom it is for, and when it ends."""
        shown = self.call("provider", "certificate", "show", *self.where).out.splitlines()
        self.assertEqual(load(self.directory).identity.fingerprints()[0], shown[0])
        self.assertIn("for a.example.com, self-signed", shown[2])
        self.assertIn("days left", shown[3])
        (line,) = self.call("provider", "certificate", "show", "--json", *self.where).lines()
        self.assertIsNone(line["next_spki"])

    def test_rotation(self) -> None:
        """The next key is announced; it is used only once every tenant knows it, or by force."""
        accounts = self.tenant()
        done = self.call("provider", "certificate", "next", "--json", *self.where)
        (line, follower) = done.lines()
        pin = line["spki"]
        self.assertEqual((1, "acme"), (line["unaware"], follower["tenant"]))
        self.assertEqual(pin, next_pin(load(self.directory)))
        refused = self.call("provider", "certificate", "renew", "--next", *self.where)
        self.assertNotEqual(0, refused.status)
        self.assertIn("acme", refused.err)
        keep_known(accounts, "acme", "machine", [pin])
        again = self.call("provider", "certificate", "next", *self.where)
        self.assertIn("All tenants know it.", again.out)
        used = self.call("provider", "certificate", "renew", "--next", "--json", *self.where)
        self.assertEqual((0, pin), (used.status, used.lines()[0]["spki"]))
        acts = [x["act"] for x in self.call("provider", "audit", "--json", *self.where).lines()]
        self.assertEqual(["init", "certificate_next", "certificate_renew"], acts)

    def test_import(self) -> None:
        """A certificate of one's own, for a key that was announced."""
        self.tenant()
        files = self_signed(("a.example.com",)).write(self.home / "tls")
        words = ("--certificate", files.certificate_path, *self.where)
        self.assertEqual(2, self.call("provider", "certificate", "import", *words).status)
        self.call("provider", "certificate", "next", "--key", files.key_path, *self.where)
        refused = self.call("provider", "certificate", "import", *words)
        self.assertIn("1 machine(s) do not know", refused.err)
        done = self.call("provider", "certificate", "import", "--force", *words)
        self.assertEqual(0, done.status, done.err)
        self.assertIn("a.example.com", done.out)

    def test_request(self) -> None:
        """A request for an authority is written."""
        path = self.home / "request.pem"
        self.call("provider", "certificate", "next", "--csr", str(path), *self.where)
        x509.load_pem_x509_csr(path.read_bytes())

    def test_nothing_runs(self) -> None:
        """Where no provider runs there is nothing to reload, and that is said."""
        done = self.call("provider", "reload", *self.where)
        self.assertNotEqual(0, done.status)
        self.assertIn("no provider runs", done.err)
