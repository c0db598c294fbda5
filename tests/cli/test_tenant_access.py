"""Tests of :mod:`cloudconnect.cli.tenant_access`: on a directory, while no provider runs."""

from __future__ import annotations

import stat
from pathlib import Path

from cloudconnect.cli.tenant_access import addresses
from cloudconnect.config.invitation import parse_invitation
from cloudconnect.config.provider import ProviderSettings
from tests.cli.test_tenants import TenantCase


class InviteTests(TenantCase):
    """Invitations."""

    def test_file(self) -> None:
        """The text goes into a file that only its owner reads, and nowhere else."""
        path = Path(self.mktemp()).absolute()
        done = self.tenant("invite", "new", "--quota", "5GB", "--output", str(path))
        self.assertEqual((0, 0o600), (done.status, stat.S_IMODE(path.stat().st_mode)))
        found = parse_invitation(path.read_bytes())
        self.assertEqual(("new", "default"), (found.tenant, found.credential))
        self.assertNotIn(found.token.reveal().decode(), done.out + done.err)
        self.assertEqual(5 * 10**9, self.accounts().tenant("new").quota)

    def test_printed(self) -> None:
        """Without a file it is printed, and is one record for programs."""
        done = self.tenant("invite", "acme", "--label", "laptop", "--can", "write", "--for", "2d")
        self.assertIn('credential = "laptop"', done.out)
        (line,) = self.tenant("invite", "acme", "--json").lines()
        self.assertEqual(("invitation", "machine-2"), (line["message_type"], line["credential"]))
        self.assertEqual("machine-2", parse_invitation(line["text"].encode()).credential)
        rows = {row["label"]: row for row in self.accounts().credentials("acme", 0, 10)}
        self.assertEqual(["write"], rows["laptop"]["capabilities"])
        self.assertTrue(170_000 < rows["laptop"]["expires"] - rows["laptop"]["created"] <= 172_800)

    def test_refused(self) -> None:
        """Settings of a tenant that is there, odd capabilities, an invitation for ever."""
        for words in (("--quota", "1GB"), ("--can", "fly"), ("--for", "1000d"), ("--for", "0")):
            self.assertEqual(2, self.tenant("invite", "acme", *words).status, words)
        self.assertEqual(1, len(self.accounts().credentials("acme", 0, 10)))

    def test_addresses(self) -> None:
        """What is advertised, or else the certificate's names with the port that is listened on."""

        def of(**changes: object) -> tuple[str, ...]:
            hosts = ("a.example", "2001:db8::1")
            return addresses(
                ProviderSettings(directory=Path("/"), **{"hosts": hosts, **changes})  # type: ignore[arg-type]
            )

        self.assertEqual(("a.example:6180", "[2001:db8::1]:6180"), of())
        self.assertEqual(("a.example:7000", "[2001:db8::1]:7000"), of(listen="tcp:7000"))
        self.assertEqual(("a.example:6180", "[2001:db8::1]:6180"), of(listen="systemd:index=0"))
        self.assertEqual(("g.example:1",), of(advertise=("g.example:1",)))


class SwitchTests(TenantCase):
    """Disabled and removed tenants."""

    def test_disabled(self) -> None:
        """Disabled, said so, enabled."""
        self.assertIn("disabled", self.tenant("disable", "acme").out)
        self.assertIn("disabled already", self.tenant("disable", "acme").out)
        self.assertIn("DISABLED", self.tenant("show", "acme").out)
        self.assertIn("enabled", self.tenant("enable", "acme").out)
        self.assertFalse(self.accounts().tenant("acme").disabled)
        self.assertEqual(10, self.tenant("disable", "nobody").status)

    def test_removed(self) -> None:
        """Removed: how to take it back is said, and how long that can be done; then it is back."""
        done = self.tenant("remove", "acme")
        for words in ("30 days", "tenant restore acme"):
            self.assertIn(words, done.out)
        self.assertIn("30 days left in the bin", self.tenant("list").out)
        self.assertIn("REMOVED", self.tenant("show", "acme").out)
        self.assertIn("back", self.tenant("restore", "acme").out)
        self.assertIn("enabled", self.tenant("list").out)
